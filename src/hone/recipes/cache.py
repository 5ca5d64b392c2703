"""The cache: what can be made again (prepared rows, imports, proofs, speeds, base models), listed and pruned.

It knows names and ages, not contents. Only what has the name of something that Hone made is ever touched, so that a
cache folder named by mistake loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from hone.data.hold import alone, is_held
from hone.data.segment import SUFFIX
from hone.errors import ConfigError, DiskError

_NAMES: Final = {
    "data": re.compile(r"[0-9a-f]{64}"),
    "imports": re.compile(r"[0-9a-f]{64}"),
    "encoders": re.compile(r"[0-9a-f]{32}-.+\.json"),
    "speeds": re.compile(r"[0-9a-f]{32}\.json"),
    "base": re.compile(r"[a-z]+-1m-[0-9a-f]+"),
}
_FILES: Final = ("encoders", "speeds")  # of other kinds an entry is a folder
_LEFT: Final = re.compile(r"\.(?:.*\.part|writing-.*)")
_WRITER: Final = re.compile(r"\.(\d+)(?:\.[0-9a-f]{8})?(?:\.broken|\.gone)?\.part$")
_LEFT_SECONDS: Final = (
    3600.0  # without a writer's name, a leftover is what nobody touched for so long
)
_HEADER_BYTES: Final = 2**20

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def cache_folder() -> Path:
    """`HONE_CACHE`, else `hone` in the user's cache folder."""
    said = os.environ.get("HONE_CACHE")
    if said:
        return Path(said).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hone"


@dataclass(frozen=True)
class Entry:
    """One thing in the cache: prepared rows of a file, an import, a proof, a base model."""

    kind: str
    path: Path
    num_bytes: int
    last_used: float
    """Unix seconds."""
    in_use: bool
    """Whether a live process holds it."""
    says: str
    """What it was made from, where that is known."""

    @property
    def name(self) -> str:
        """Its place in the cache, such as `data/3f…`."""
        return f"{self.kind}/{self.path.name}"

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return {
            "name": self.name,
            "kind": self.kind,
            "bytes": self.num_bytes,
            "last_used": self.last_used,
            "in_use": self.in_use,
            "says": self.says,
        }


@dataclass(frozen=True)
class Contents:
    """What lies in a cache folder: entries, those used longest ago first, and what killed writers left."""

    folder: Path
    entries: tuple[Entry, ...]
    leftovers: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Size of all entries."""
        return sum(one.num_bytes for one in self.entries)

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return {
            "folder": str(self.folder),
            "bytes": self.num_bytes,
            "entries": [one.to_json() for one in self.entries],
            "leftovers": [str(path.relative_to(self.folder)) for path in self.leftovers],
        }


@dataclass(frozen=True)
class Pruned:
    """What a pruning removed, or would remove."""

    folder: Path
    removed: tuple[Entry, ...]
    leftovers: tuple[Path, ...]
    kept: tuple[Entry, ...]
    spared: tuple[Entry, ...]
    """Those of the kept that would have gone if they were not in use."""
    dry_run: bool

    @property
    def num_bytes(self) -> int:
        """Size of what was removed."""
        return sum(one.num_bytes for one in self.removed)

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return {
            "folder": str(self.folder),
            "dry_run": self.dry_run,
            "bytes": self.num_bytes,
            "removed": [one.to_json() for one in self.removed],
            "leftovers": [str(path.relative_to(self.folder)) for path in self.leftovers],
            "kept": [one.to_json() for one in self.kept],
            "spared": [one.name for one in self.spared],
        }


def look(folder: Path) -> Contents:
    """What lies in a cache folder; nothing where there is none. Raises DiskError."""
    with _disk_errors(folder):
        entries = [one for kind in _NAMES for one in _entries(folder / kind, kind)]
        left = [path for kind in _NAMES for path in _leftovers(folder / kind)]
    return Contents(folder, tuple(sorted(entries, key=lambda one: one.last_used)), tuple(left))


def prune(
    folder: Path,
    *,
    older_than: float | None = None,
    max_bytes: int | None = None,
    everything: bool = False,
    dry_run: bool = False,
) -> Pruned:
    """Remove what killed writers left; what was not used for `older_than` seconds; and of the rest what was
    used longest ago, until at most `max_bytes` are left. What a live process holds stays.

    Raises DiskError.
    """
    found = look(folder)
    now = time.time()
    left = found.num_bytes
    removed: list[Entry] = []
    spared: list[Entry] = []
    for one in found.entries:
        is_old = older_than is not None and now - one.last_used > older_than
        if not (everything or is_old or (max_bytes is not None and left > max_bytes)):
            continue
        with _disk_errors(one.path):
            if one.in_use or not (dry_run or _remove(one.path)):
                spared.append(one)
                continue
        removed.append(one)
        left -= one.num_bytes
    if not dry_run:
        for path in found.leftovers:
            with _disk_errors(path):
                _delete(path)
    kept = [one for one in found.entries if one not in removed]
    return Pruned(folder, tuple(removed), found.leftovers, tuple(kept), tuple(spared), dry_run)


def read_duration(text: str) -> float:
    """Seconds of `90s`, `12h`, `30d` or `2w`. Raises ConfigError."""
    return _quantity(text, _SECONDS, "--older-than", "30d")


def read_size(text: str) -> int:
    """Bytes of `500MB`, `20GB` or `1.5 GiB`. Raises ConfigError."""
    return int(_quantity(text, _BYTES, "--max-size", "20GB"))


def _quantity(text: str, units: dict[str, int], flag: str, example: str) -> float:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)", text.strip())
    if match is None or match[2].lower() not in units:
        raise ConfigError(
            f"{flag}: {text!r} is not a number with a unit",
            remedy=f"write it as {example}; units: {', '.join(units)}",
        )
    return float(match[1]) * units[match[2].lower()]


def _entries(folder: Path, kind: str) -> Iterator[Entry]:
    for path in _listed(folder):
        if not _NAMES[kind].fullmatch(path.name) or path.is_symlink():
            continue
        if path.is_dir() == (kind in _FILES):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process removes it meanwhile
            size, used = _size(path)
            yield Entry(kind, path, size, used, is_held(path), _says(path, kind))


def _leftovers(folder: Path) -> Iterator[Path]:
    """What a writer that died left; what lies in an entry that is in use may have a living writer."""
    for path in _listed(folder):
        if path.is_symlink():
            continue
        if _LEFT.fullmatch(path.name):
            if _is_left(path):
                yield path
        elif path.is_dir() and not is_held(path):
            inner = (one for one in _listed(path) if _LEFT.fullmatch(one.name))
            yield from (one for one in inner if _is_left(one))


def _is_left(path: Path) -> bool:
    writer = _WRITER.search(path.name)
    if writer is not None and len(writer[1]) < 8:
        return not Path(f"/proc/{writer[1]}").exists()
    try:
        return time.time() - path.lstat().st_mtime > _LEFT_SECONDS
    except FileNotFoundError:
        return False


def _listed(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _size(path: Path) -> tuple[int, float]:
    """Bytes of a file or folder, and when any of it was last changed or used."""
    about = path.lstat()
    if not path.is_dir():
        return about.st_size, about.st_mtime
    inner = [_size(one) for one in _listed(path) if not one.is_symlink()]
    return sum(size for size, _ in inner), max([about.st_mtime, *(used for _, used in inner)])


def _says(path: Path, kind: str) -> str:
    """The file whose rows were prepared; other kinds do not say."""
    if kind != "data":
        return ""
    for segment in _listed(path):
        if segment.suffix != SUFFIX:
            continue
        try:
            with segment.open("rb") as file:
                size = min(int.from_bytes(file.read(8), "little"), _HEADER_BYTES)
                about = json.loads(json.loads(file.read(size))["__metadata__"]["about"])
            return str(cast("dict[str, Any]", about)["ledger"]["file"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return ""


def _remove(path: Path) -> bool:
    """Remove an entry unless somebody holds it: it loses its name first, so that none finds half of it."""
    gone = path.with_name(f".{path.name}.{os.getpid()}.gone.part")
    with alone(path) as is_mine:
        if not is_mine:
            return False
        try:
            path.rename(gone)
        except FileNotFoundError:
            return True  # another process was first
    _delete(gone)
    return True


def _delete(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def _disk_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as fault:
        raise DiskError(
            f"cannot look after the cache: {fault.strerror or fault}",
            where=fault.filename or str(path),
            remedy="is the folder yours? HONE_CACHE names another one",
        ) from fault
