"""Disks that fail or die at the n-th operation, and what a power failure leaves behind."""

from __future__ import annotations

import errno
from pathlib import Path

from hone.runs.disk import Disk


class Killed(BaseException):
    """The process ended here: nothing after it runs."""


class FaultyDisk(Disk):
    """Counts operations; the `at`-th (from 1) fails with an error, or with `dies` is the process's last."""

    def __init__(self, at: int, *, error: int = errno.EIO, dies: bool = False) -> None:
        self.at, self.error, self.dies = at, error, dies
        self.calls = 0
        self.struck = False

    def strike(self, what: str) -> None:
        self.calls += 1
        if self.dies and self.calls >= self.at:
            self.struck = True
            raise Killed(f"{what} was call {self.calls}")
        if self.calls == self.at:
            self.struck = True
            raise OSError(self.error, "injected", what)

    def write(self, path: Path, data: bytes) -> None:
        if self.calls + 1 >= self.at and not self.struck:
            path.write_bytes(data[: len(data) // 2])  # part of it got through
        self.strike("write")
        super().write(path, data)

    def fsync(self, path: Path) -> None:
        self.strike("fsync")
        super().fsync(path)

    def fsync_folder(self, path: Path) -> None:
        self.strike("fsync_folder")
        super().fsync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        self.strike("rename")
        super().rename(old, new)

    def make_folder(self, path: Path) -> None:
        self.strike("make_folder")
        super().make_folder(path)

    def remove(self, path: Path) -> None:
        if self.calls + 1 >= self.at and not self.struck and path.is_dir():
            sorted(path.iterdir())[0].unlink()  # part of it is gone
        self.strike("remove")
        super().remove(path)


class PowerLoss(FaultyDisk):
    """A disk whose cache is lost: `lose()` leaves of it only what had been pushed.

    Content that was not pushed comes back empty; names that were not pushed are missing, or, after a
    rename, as they were.
    """

    def __init__(self, at: int) -> None:
        super().__init__(at, dies=True)
        self.pushed: set[int] = set()
        self.renamed: list[tuple[Path, Path]] = []
        self.made: dict[int, set[str]] = {}  # names pushed in each new folder

    def fsync(self, path: Path) -> None:
        super().fsync(path)
        self.pushed.add(path.stat().st_ino)

    def fsync_folder(self, path: Path) -> None:
        super().fsync_folder(path)
        self.made[path.stat().st_ino] = {item.name for item in path.iterdir()}
        self.renamed = [(old, new) for old, new in self.renamed if new.parent != path]

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.made[path.stat().st_ino] = set()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.renamed.append((old, new))

    def lose(self, folder: Path, *, names_too: bool) -> None:
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_ino not in self.pushed:
                path.write_bytes(b"")
        for path in sorted(folder.iterdir()) if names_too else []:
            for item in path.iterdir() if path.stat().st_ino in self.made else []:
                if item.name not in self.made[path.stat().st_ino]:
                    item.unlink()
        for old, new in reversed(self.renamed if names_too else []):
            if new.exists() and not old.exists():
                new.rename(old)
