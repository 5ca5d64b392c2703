"""The lock of a run folder: one live run at a time. It knows only a file.

The system holds the lock (flock) and frees it when the process ends, however it ends. What stands in the file
only serves to say who holds it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hone.errors import DiskError, LockedError


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock: its id, its machine, and when it took it (unix seconds)."""

    pid: int
    host: str
    started: float

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"process {self.pid} on {self.host}, since {since}"


class RunLock:
    """`with RunLock(path): ...` or LockedError. The file stays; only the lock comes and goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock and write who holds it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = Owner(pid=os.getpid(), host=platform.node(), started=time.time())
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, (json.dumps(vars(mine)) + "\n").encode(), 0)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise _locked(self.path) from error
            raise self._unusable(error) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _unusable(self, error: OSError) -> DiskError:
        return DiskError(
            f"cannot lock the run folder: {error.strerror or error}",
            where=str(self.path),
            remedy="choose an output folder on a local disk where you may write",
        )


def holder(path: Path) -> Owner | None:
    """Who holds the lock now; None where nobody does. An owner that wrote no name comes with pid 0."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _written_owner(path)
    finally:
        os.close(descriptor)
    return None


def _written_owner(path: Path) -> Owner:
    try:
        content = cast("dict[str, Any]", json.loads(path.read_bytes()))
        return Owner(int(content["pid"]), str(content["host"]), float(content["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Owner(pid=0, host="an unknown machine", started=0.0)


def _locked(path: Path) -> LockedError:
    owner = _written_owner(path)
    known = owner.pid > 0
    return LockedError(
        f"the output folder is in use by {owner if known else 'another run'}",
        where=str(path.parent),
        remedy="wait until that run ends"
        + (f", or stop it (kill -INT {owner.pid} on {owner.host}: it saves first)" if known else "")
        + ", or choose another output folder",
    )
