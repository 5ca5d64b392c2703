"""Where rows are: whatever the user named, as one JSONL or JSON file. It knows neither their shape nor their meaning.

What is JSONL or JSON already stays where it is. Everything else (a table, a folder, a hub dataset, the beginning of
any) is imported into the cache, keyed by content, and from there on the one road applies.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from hone.data.hold import Hold
from hone.data.importers.findings import Findings
from hone.data.importers.formats import TABLES, raw_rows
from hone.data.importers.hub import find_hub_split, is_hub_id
from hone.data.importers.raw_file import Identity, RawFile, local_file
from hone.data.importers.saved import is_saved, saved_files
from hone.data.importers.splits import refuse_split_of_one, split_files
from hone.data.importers.store import Imported, ImportStore, key_of
from hone.data.reader import check_regular
from hone.data.strict import JsonObject
from hone.errors import ConfigError, DataError

Say = Callable[[str, dict[str, Any]], None]

_SHOWN_FILES: Final = 3
_MODEL_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "model.safetensors")


@dataclass(frozen=True)
class RowFile:
    """A file that `hone.data.reader.RowReader` reads, and how the user named it.

    Where the rows were imported, line n of `path` is row n, and messages say `name:n`; `hold` keeps the
    import from being pruned.
    """

    path: Path
    name: str
    hold: Hold | None = field(default=None, compare=False, repr=False)


def find_rows(
    path: str,
    *,
    split: str | None = None,
    subset: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    max_rows: int | None = None,
    cache_dir: Path,
    say: Say,
    prefer: str = "train",
) -> RowFile:
    """The rows that `path` names: a file, a folder of files, a folder saved by datasets, or a hub id.

    What exists on this machine is never looked for on the hub. `max_rows` takes the beginning.
    `prefer` is the split of a folder or hub dataset that is taken where none is named. Imports are kept
    under `cache_dir`; `say` hears a `notice` for each thing that a user should know, also when the
    import was made earlier. Raises DataError for rows that cannot be used, ConfigError for a setting
    that does not fit what is there, DiskError when the cache cannot be written, EnvironmentFault for an
    absent package, an unreachable hub or a dataset that needs another token.
    """
    place = Path(path).expanduser()
    finder = _Finder(path, place, split, subset, revision, max_rows, ImportStore(cache_dir), say)
    if not _exists(place) and is_hub_id(path):
        return finder.from_hub(cache_dir, prefer=prefer, streaming=streaming)
    if streaming:
        _notice(say, "idle-setting", f"data.streaming has no effect: {path} is on this machine")
    if revision is not None:
        raise ConfigError(
            "data.revision names a version of a hub dataset, and the rows are on this machine",
            where=path,
            remedy="remove data.revision",
        )
    if _is_folder(place):
        return finder.from_folder(prefer=prefer)
    return finder.from_file()


@dataclass(frozen=True)
class _Finder:
    named: str
    place: Path
    split: str | None
    subset: str | None
    revision: str | None
    max_rows: int | None
    store: ImportStore
    say: Say

    def from_file(self) -> RowFile:
        check_regular(self.place, self.named)
        if self.split is not None:
            refuse_split_of_one(self.split, self.named)
        self._refuse_subset()
        return self._from_local([self.place], [self.named], self.named)

    def from_folder(self, *, prefer: str) -> RowFile:
        if any((self.place / name).is_file() for name in _MODEL_FILES):
            raise DataError(
                "this is the folder of a model, not of rows",
                where=self.named,
                remedy="the model is named by --model (model.name), the rows by data.path",
            )
        if is_saved(self.place):
            self._refuse_subset()
            split, paths = saved_files(self.place, split=self.split, prefer=prefer)
        else:
            chosen = split_files(
                str(self.place), split=self.split, subset=self.subset, prefer=prefer
            )
            split, paths = chosen.split, [_inside(self.place, one) for one in chosen.files]
        name = f"{self.named}@{split}" if split else self.named
        names = [f"{self.named.rstrip('/')}/{_relative(path, self.place)}" for path in paths]
        return self._from_local(paths, names, name)

    def from_hub(self, cache_dir: Path, *, prefer: str, streaming: bool) -> RowFile:
        found = find_hub_split(
            self.named,
            split=self.split,
            subset=self.subset,
            revision=self.revision,
            prefer=prefer,
            records=cache_dir / "hub",
        )
        for text in found.notices:
            _notice(self.say, "hub", text)
        key = key_of("hub", found.commit, found.repo, list(found.files), self.max_rows)
        kept = self.store.find(key)
        if kept is not None:
            return self._told(kept, found.name, found.files)
        if streaming:
            files = found.remote_files()
        else:
            files = found.fetched_files()
            one = self._as_it_is(files)
            if one is not None:
                return RowFile(one, found.name)
        return self._imported(key, files, found.name)

    def _refuse_subset(self) -> None:
        if self.subset is not None:
            raise ConfigError(
                f"no subset {self.subset!r}: there are no subsets here",
                where=self.named,
                remedy="remove data.subset; it chooses among those of a hub dataset",
            )

    def _from_local(self, paths: Sequence[Path], names: Sequence[str], name: str) -> RowFile:
        files = [local_file(path, one) for path, one in zip(paths, names, strict=True)]
        as_it_is = self._as_it_is(files)
        if as_it_is is not None:
            return RowFile(as_it_is, names[0])
        seen = [Identity.of(path, one) for path, one in zip(paths, names, strict=True)]
        contents = [(file.suffix, one.sha256) for file, one in zip(files, seen, strict=True)]
        key = key_of("local", contents, self.max_rows)
        kept = self.store.find(key)
        if kept is not None:
            return self._told(kept, name, names)

        def check() -> None:
            for path, one, identity in zip(paths, names, seen, strict=True):
                identity.check_unchanged(path, one)

        return self._imported(key, files, name, check=check)

    def _as_it_is(self, files: Sequence[RawFile]) -> Path | None:
        """The one file that needs no import."""
        whole = self.max_rows is None and len(files) == 1 and files[0].suffix not in TABLES
        return files[0].path if whole else None

    def _imported(
        self,
        key: str,
        files: Sequence[RawFile],
        name: str,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> RowFile:
        findings = Findings()
        rows = partial(_concatenated, files, findings, self.max_rows, check)
        kept = self.store.write(key, rows(), findings, name=name)
        return self._told(kept, name, [file.name for file in files])

    def _told(self, kept: Imported, name: str, names: Sequence[str]) -> RowFile:
        shown = ", ".join(Path(one).name for one in names[:_SHOWN_FILES])
        more = f" and {len(names) - _SHOWN_FILES} more" if len(names) > _SHOWN_FILES else ""
        files = f" from {len(names)} files ({shown}{more})" if len(names) > 1 else ""
        text = f"{name}: {kept.rows:,} rows imported{files}; {name}:1 is the first row"
        _notice(self.say, "imported", text)
        for code, sentence in kept.findings.notices(name):
            _notice(self.say, code, sentence)
        return RowFile(kept.path, name, Hold(kept.path.parent))


def _concatenated(
    files: Sequence[RawFile],
    findings: Findings,
    max_rows: int | None,
    check: Callable[[], None],
) -> Iterator[JsonObject]:
    def every() -> Generator[JsonObject]:
        for file in files:
            yield from raw_rows(file, findings)

    with closing(every()) as rows:
        yield from islice(rows, max_rows)
        if max_rows is not None and _goes_on(rows):
            findings.add("max-rows", max_rows)
    check()


def _goes_on(rows: Iterator[JsonObject]) -> bool:
    """Whether there is another row; one that cannot be read is not asked for, and is one."""
    try:
        return next(rows, None) is not None
    except DataError:
        return True


def _exists(place: Path) -> bool:
    """Whether something is there; what cannot be looked at is refused later, with the reason."""
    try:
        place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def _is_folder(place: Path) -> bool:
    try:
        return stat.S_ISDIR(place.stat().st_mode)
    except (OSError, ValueError):
        return False  # refused later, with the reason


def _inside(folder: Path, file: str) -> Path:
    """The path of a file that lies in the folder; a card may name any."""
    path = Path(os.path.normpath(file))
    if "://" in file or not any(
        path.is_relative_to(base) for base in (folder, folder.absolute(), folder.resolve())
    ):
        raise DataError(
            f"the folder's card names rows outside of it: {file}",
            where=str(folder),
            remedy="name that file itself, or mend the card (README.md)",
        )
    return path


def _relative(path: Path, folder: Path) -> str:
    for base in (folder, folder.absolute(), folder.resolve()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return path.name


def _notice(say: Say, code: str, message: str) -> None:
    say("notice", {"code": code, "message": message})
