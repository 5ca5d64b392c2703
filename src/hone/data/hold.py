"""A hold on a folder of the cache: nobody removes it while a process has one. It knows no content.

The hold is a shared lock (flock) on a file of its own, `holds/KIND-NAME` for the folder `KIND/NAME` of the cache; the
system frees it when the process ends, however it ends. Who removes the folder takes the lock alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

FOLDER: Final = "holds"


class Hold:
    """A shared hold on a folder, until `release` or the end of the object. Taking it marks the folder as used
    now.

    A cache that cannot be written or locked is used without a hold: `is_held` is False then, and nothing is
    lost but time, for what lies in a cache can be made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = _lock(lock_of(folder), fcntl.LOCK_SH)
        with contextlib.suppress(OSError):
            os.utime(folder)

    @property
    def is_held(self) -> bool:
        """Whether the lock was given."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Give it back; harmless when it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.release()


@contextlib.contextmanager
def alone(folder: Path) -> Generator[bool]:
    """Within, nobody else takes a hold on the folder; told False where somebody has one, or where that
    cannot be known."""
    path = lock_of(folder)
    descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield descriptor >= 0
    finally:
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a live process holds the folder."""
    try:
        descriptor = os.open(lock_of(folder), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # not to be known
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_of(folder: Path) -> Path:
    """The file that is locked for a folder of the cache."""
    return folder.parent.parent / FOLDER / f"{folder.parent.name}-{folder.name}"


def _lock(path: Path, how: int) -> int:
    """A descriptor that has the lock, or -1. The file may be removed by who had it alone: then anew."""
    while True:
        try:
            path.parent.mkdir(exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o666)
        except OSError:
            return -1
        try:
            fcntl.flock(descriptor, how)
            there = path.stat()
            if os.path.samestat(os.fstat(descriptor), there):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            return -1
        os.close(descriptor)
