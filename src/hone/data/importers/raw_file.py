"""A file of rows before anything is known of it: a name and a way to open it. It knows no format and no rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from hone.data.reader import check_regular
from hone.errors import DataError

_BLOCK_BYTES: Final = 2**20


@dataclass(frozen=True)
class RawFile:
    """Bytes, on this machine or elsewhere. `open_bytes` gives a new seekable stream at the beginning."""

    name: str
    open_bytes: Callable[[], BinaryIO]
    path: Path | None = None
    """Where it is on this machine; None: elsewhere."""

    @property
    def suffix(self) -> str:
        """The end of its name, such as `.csv`, in small letters."""
        return PurePosixPath(self.path or self.name).suffix.lower()


def local_file(path: Path, name: str) -> RawFile:
    """A regular file of this machine. Raises DataError for anything else."""
    check_regular(path, name)
    return RawFile(name, lambda: open_local(path, name), path)


def open_local(path: Path, name: str) -> BinaryIO:
    """The file's bytes. Raises DataError where they may not be read."""
    try:
        return path.open("rb")
    except OSError as fault:
        raise DataError(
            f"cannot read the file: {fault.strerror or fault}",
            where=name,
            remedy="check that it exists and that you may read it",
        ) from fault


@dataclass(frozen=True)
class Identity:
    """What a local file's content was at one moment."""

    sha256: str
    state: tuple[int, int, int]  # inode, bytes, nanoseconds of the last change

    @classmethod
    def of(cls, path: Path, name: str) -> Identity:
        """Read the file once. Raises DataError where it cannot be read."""
        state = _state(path, name)
        with open_local(path, name) as stream:
            digest = hashlib.sha256()
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
        return cls(digest.hexdigest(), state)

    def check_unchanged(self, path: Path, name: str) -> None:
        """Raise DataError where the file is not as it was."""
        if _state(path, name) != self.state:
            raise DataError(
                "the file changed while it was read",
                where=name,
                remedy="let the program that writes it finish, and start again",
            )


def _state(path: Path, name: str) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as fault:
        raise DataError(
            f"the file is gone: {fault.strerror or fault}", where=name, remedy="restore it"
        ) from fault
    return status.st_ino, status.st_size, status.st_mtime_ns
