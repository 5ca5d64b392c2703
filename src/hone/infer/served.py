"""A name that is served and what stands behind it now: a fixed place, a run, or a folder of checkpoints. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hone.errors import HoneError
from hone.infer.place import Place, find_place
from hone.infer.writer import UnknownModel
from hone.models.saved_adapter import CONFIG, WEIGHTS, read_adapter
from hone.runs.checkpoint import MANIFEST
from hone.runs.folder import RunFolder

_STEP: Final = re.compile(r"step-(\d{8,})")
_NUMBER: Final = re.compile(r"\d{4,}")


@dataclass(frozen=True)
class Stand:
    """What answers to a name at this moment; `stamp` differs when its weights do."""

    stamp: tuple[object, ...]
    place: Callable[[], Place]


class Served:
    """A name and its checkpoints, looked up anew each time."""

    def __init__(self, name: str, target: str, *, revision: str | None = None) -> None:
        """Raises ModelError and EnvironmentFault where there is nothing of that name."""
        self.name = name
        self._revision = revision
        self._target = target
        found = find_place_of_run(target)
        self._run = found
        self._place = None if found is not None else find_place(target, revision=revision)

    @property
    def grows(self) -> bool:
        """Whether checkpoints may come."""
        return self._run is not None

    def names(self) -> list[str]:
        """Its own name where it can answer, and one for each checkpoint, ascending."""
        steps = [f"{self.name}@{step}" for step in sorted(self._steps())]
        return [self.name, *steps] if self._run is None or steps or self._is_finished() else []

    def stand(self, full: str) -> Stand:
        """What answers to `NAME` or `NAME@STEP`. Raises UnknownModel."""
        name, at, step = full.partition("@")
        if full == self.name or not at:
            return self._newest()
        found = self._steps()
        if name != self.name or not step.isdecimal() or int(step) not in found:
            raise UnknownModel(
                f"{self.name} has no checkpoint {step!r}",
                remedy="there are: " + (", ".join(map(str, sorted(found))) or "none yet"),
            )
        return self._checkpoint(found[int(step)])

    def _newest(self) -> Stand:
        if self._place is not None:
            place = self._place
            return Stand(_stamp(place.folder), lambda: place)
        if self._is_finished():
            return Stand(_stamp(Path(self._run.path if self._run else "")), self._find)
        found = self._steps()
        if not found:
            raise UnknownModel(
                f"{self.name} has no checkpoint yet", remedy="wait for its first one, and ask again"
            )
        return self._checkpoint(found[max(found)])

    def _find(self) -> Place:
        return find_place(str(self._run.path if self._run else self._target))

    def _is_finished(self) -> bool:
        return self._run is not None and bool((self._run.read_identity() or {}).get("finished"))

    def _steps(self) -> dict[int, Path]:
        if self._run is None:
            return {}
        return {
            int(match[1]): path
            for path in _entries(self._run.checkpoints_folder)
            if (match := _STEP.fullmatch(path.name)) and (path / MANIFEST).is_file()
        }

    def _checkpoint(self, path: Path) -> Stand:
        return Stand(_stamp(path), lambda: find_place(str(path)))


class Growing(Served):
    """A folder that holds `checkpoints/0001`, `checkpoints/0002`, …, each a PEFT adapter of one base.

    `NAME` is the newest of them, and the base while there is none; `NAME@N` each, and `NAME@0` the base where
    there is no `0000`.
    """

    def __init__(self, name: str, folder: Path, base: str) -> None:
        """Raises ModelError where there is no such base."""
        self.name = name
        self._folder = folder
        self._place = find_place(base)
        if self._place.kind != "model":
            raise HoneError(f"--base {base} is no model", remedy="name a model folder or a hub id")

    @property
    def grows(self) -> bool:
        """Always."""
        return True

    def names(self) -> list[str]:
        """As `Served.names`."""
        return [self.name, *(f"{self.name}@{step}" for step in sorted({0, *self._steps()}))]

    def stand(self, full: str) -> Stand:
        """As `Served.stand`."""
        if full == f"{self.name}@0" and 0 not in self._steps():
            return self._newest_of({})
        return super().stand(full)

    def _newest(self) -> Stand:
        return self._newest_of(self._steps())

    def _newest_of(self, found: dict[int, Path]) -> Stand:
        base = self._place
        assert base is not None
        if not found:
            return Stand(_stamp(base.folder), lambda: base)
        return self._checkpoint(found[max(found)])

    def _steps(self) -> dict[int, Path]:
        return {
            int(path.name): path
            for path in _entries(self._folder / "checkpoints")
            if _NUMBER.fullmatch(path.name)
            and (path / CONFIG).is_file()
            and (path / WEIGHTS).is_file()
        }

    def _checkpoint(self, path: Path) -> Stand:
        base = self._place
        assert base is not None
        return Stand(_stamp(path), lambda: Place("adapter", path, base=base.folder))


def growing_base(folder: Path) -> str | None:
    """The base of a folder that holds `checkpoints/NNNN` and is no run, by the newest of them; None for others."""
    if RunFolder(folder).is_run or (folder / "config.json").is_file():
        return None
    found = [
        path
        for path in _entries(folder / "checkpoints")
        if _NUMBER.fullmatch(path.name) and (path / CONFIG).is_file()
    ]
    return str(read_adapter(found[-1])["base_model_name_or_path"]) if found else None


def find_place_of_run(target: str, root: Path = Path("runs")) -> RunFolder | None:
    """The run that `target` names, by its path or by its name in `root`; None where it is none."""
    path = Path(target).expanduser()
    if not path.is_dir() and (root / target).is_dir():
        path = root / target
    return RunFolder(path) if path.is_dir() and RunFolder(path).is_run else None


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _stamp(folder: Path) -> tuple[object, ...]:
    """Which weights these are: a folder that was written anew has another stamp."""
    seen: list[object] = [str(folder)]
    for name in (MANIFEST, CONFIG, WEIGHTS, "config.json", "model.safetensors"):
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        seen.append((name, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(seen)
