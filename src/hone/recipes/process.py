"""`process`: raw rows of many shapes to train, val and test in one shape. It composes files and rows, and prints nothing.

The agent recipe of the same verb stands in `agent.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from hone.data.changes import ChangeLedger, ChangeReport, Fate
from hone.data.conversation import Conversation
from hone.data.outbox import Outbox, as_line
from hone.data.parts import RowKey, assign, said_key
from hone.data.plain_rows import Tidying, read_plain
from hone.data.raw_rows import RawRow
from hone.data.shape_writers import write_row
from hone.errors import ConfigError, DataError
from hone.recipes.change import Places, parsed, raw_rows
from hone.recipes.split import moved_notice

DEFAULT_SHARES: Final = {"train": 0.7, "val": 0.1, "test": 0.2}
_ALONE: Final = ("raw.json", "raw.jsonl", "raw.csv", "sample.jsonl")
_NAMES: Final = {
    "train": ("train",),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test",),
}
_JSON: Final = (".jsonl", ".json")
_TABLES: Final = (".csv", ".tsv", ".parquet", ".arrow")


@dataclass(frozen=True)
class _Sources:
    """The file of each part, or one file under no part's name, and what lies beside it unread."""

    files: Mapping[str, Path]
    unread: tuple[Path, ...] = ()

    @property
    def alone(self) -> Path | None:
        """The one file that is to be split."""
        return self.files.get("")


@dataclass
class _Kept:
    """The rows of one part as they will be written, the key of each, and how long its texts are."""

    rows: list[bytes] = field(default_factory=list[bytes])
    keys: list[RowKey] = field(default_factory=list[RowKey])
    lengths: list[_Lengths] = field(default_factory=list["_Lengths"])

    def add(self, row: bytes, key: RowKey, lengths: _Lengths) -> None:
        """One more row."""
        self.rows.append(row)
        self.keys.append(key)
        self.lengths.append(lengths)

    def describe(self) -> str:
        """Rows, and the mean lengths of what is asked and answered."""
        asked, asks, answered, answers = (sum(one) for one in zip(*self.lengths, strict=True))
        count = f"{len(self.rows):,} row{'' if len(self.rows) == 1 else 's'}"
        return (
            f"{count}; a user turn has {asked / max(1, asks):,.0f} characters on average, "
            f"an answer {answered / max(1, answers):,.0f}"
        )


class _Lengths(NamedTuple):
    """Characters and turns of the user, then of the assistant, in one row."""

    asked: int
    asks: int
    answered: int
    answers: int

    @classmethod
    def of(cls, said: Conversation) -> _Lengths:
        """Those of a conversation."""
        asked = [len(one.content) for one in said.messages if one.role == "user"]
        answered = [len(one.content) for one in said.messages if one.role == "assistant"]
        return cls(sum(asked), len(asked), sum(answered), len(answered))


def process(
    places: Places,
    *,
    shares: Mapping[str, float] | None = None,
    tidying: Tidying | None = None,
    seed: int = 0,
) -> ChangeReport:
    """Write train, val and test as `messages` rows into the folder `places.out`.

    `places.source` is a folder or a file. A folder's `train.jsonl` (and `val`, `test`) stay the parts that they
    are; else a single file (`raw.json`, `raw.jsonl`, `raw.csv`, `sample.jsonl`, or the only one) is split by
    `shares`, as `split` does. Conversations stay whole, and texts too unless `tidying` cuts them.

    Raises ConfigError for settings and places that do not fit, DataError for files that cannot be read or where a
    part would be empty, DiskError.
    """
    sources = _find(places.source)
    if sources.alone is None and shares is not None:
        raise ConfigError(
            "--ratio has no effect: the rows are split already",
            where=str(places.source),
            remedy="leave it out, or name one file",
        )
    _refuse_same_folder(places)
    report = ChangeReport("process")
    for unread in sources.unread:
        report.notices.append(f"not read: {unread}")
    tidying = tidying or Tidying()
    kept: dict[str, _Kept] = {}
    for part, file in sources.files.items():
        ledger = ChangeLedger(str(file))
        report.ledgers.append(ledger)
        kept[part] = _read(file, ledger, tidying)
    report.check("each row needs a question and an answer; see the reasons above")
    if sources.alone is not None:
        kept = _parted(kept[""], shares or DEFAULT_SHARES, seed, report)
    else:
        _check_parts(kept, sources, report)
    with Outbox(inputs=sources.files.values(), force=places.force) as outbox:
        for part, rows in kept.items():
            sink = outbox.rows(places.out / f"{part}.jsonl")
            for row in rows.rows:
                sink.add(row)
            report.written[str(sink.path)] = sink.count
            report.notices.append(f"{part}: {rows.describe()}")
        places.refuse_strays({places.out / f"{part}.jsonl" for part in kept})
        places.finish(report, outbox)
    return report


def _find(source: Path) -> _Sources:
    if source.is_file():
        return _Sources({"": source})
    if not source.is_dir():
        raise DataError(
            "no such folder",
            where=str(source),
            remedy="put raw.jsonl, or train.jsonl and val.jsonl, into it, or name another one",
        )
    found = [
        one
        for one in sorted(source.iterdir())
        if one.suffix in _JSON + _TABLES and one.is_file() and not one.name.startswith(".")
    ]
    by_part = {part: [one for one in found if one.stem in names] for part, names in _NAMES.items()}
    for part, files in by_part.items():
        if len(files) > 1:
            raise DataError(
                f"two files for the part {part!r}: {', '.join(one.name for one in files)}",
                where=str(source),
                remedy="keep one of them",
            )
    if by_part["train"]:
        parts = {part: files[0] for part, files in by_part.items() if files}
        return _Sources(parts, tuple(one for one in found if one not in parts.values()))
    alone = next((source / name for name in _ALONE if source / name in found), None)
    if alone is None and len(found) == 1:
        alone = found[0]
    if alone is None:
        names = ", ".join(one.name for one in found)
        raise DataError(
            f"which file? found {names}" if found else "no file of rows in the folder",
            where=str(source),
            remedy=f"name one of them {_ALONE[1]}, or type: hone process FILE",
        )
    return _Sources({"": alone}, tuple(one for one in found if one != alone))


def _refuse_same_folder(places: Places) -> None:
    folder = places.source if places.source.is_dir() else places.source.parent
    if places.out.exists() and places.out.samefile(folder):
        raise ConfigError(
            "the output is the folder of the raw rows: nothing is changed in place",
            where=str(places.out),
            remedy="name another folder with --out",
        )


def _read(file: Path, ledger: ChangeLedger, tidying: Tidying) -> _Kept:
    kept = _Kept()
    for raw, fate in raw_rows(file).fates(ledger):
        said = _tidied(raw, fate, ledger, tidying)
        if said is not None:
            row, _ = write_row(said, "messages", lossy=False, where=str(raw.origin))
            kept.add(as_line(row), said_key(said.content_hash()), _Lengths.of(said))
    return kept


def _tidied(raw: RawRow, fate: Fate, ledger: ChangeLedger, tidying: Tidying) -> Conversation | None:
    """What the row says; None where it was dropped, which its fate then knows."""
    value = parsed(raw, fate)
    if value is None:
        return None
    try:
        plain = read_plain(value, raw.origin)
        said, done = tidying.tidy(plain)
    except DataError as fault:
        fate.refuse(fault)
        return None
    ledger.saw(plain.shape)
    for what in done:
        fate.repair(what)
    for what in plain.mapped:
        fate.repair(f"columns taken for question and answer: {what}")
    for key in plain.left_out:
        fate.repair(f"left out: the column {key!r}")
    fate.keep()
    return said


def _parted(
    kept: _Kept, shares: Mapping[str, float], seed: int, report: ChangeReport
) -> dict[str, _Kept]:
    assignment = assign(kept.keys, shares, seed=seed)
    if assignment.moved:
        report.notices.append(moved_notice(assignment))
    parts = {part: _Kept() for part in shares}
    every = zip(assignment.parts, kept.rows, kept.keys, kept.lengths, strict=True)
    for part, row, key, lengths in every:
        parts[part].add(row, key, lengths)
    return parts


def _check_parts(kept: Mapping[str, _Kept], sources: _Sources, report: ChangeReport) -> None:
    """Parts that were given: none may have lost all its rows, and rows of two parts are told."""
    for (part, rows), ledger in zip(kept.items(), report.ledgers, strict=True):
        if not rows.rows:
            raise DataError(
                f"no row of the part {part!r} is left: {ledger.sentence()}",
                where=str(sources.files[part]),
                remedy="repair its rows, or remove the file",
            )
    for part in ("val", "test"):
        if part in kept:
            train = {key.content for key in kept["train"].keys}
            common = sum(key.content in train for key in kept[part].keys)
            if common:
                report.notices.append(f"{common:,} rows of {part} are also rows of train")
        else:
            report.notices.append(f"no {part} file was given, so none is written")
