"""How many connections a server may hold, so that it never runs out of open files.

When a process has no descriptor left, accepting fails, and asyncio tries it again and again, each time with a traceback
in the log; jobs could not be started nor files be opened meanwhile. So the limit is known first, and kept below.
"""

from __future__ import annotations

import contextlib
import resource
import socket
from typing import Final

import uvicorn

from hone.errors import EnvironmentFault

AT_ONCE: Final = 32
"""Connections that are accepted in one go, before any of them is looked at."""
_UNSEEN: Final = 4 * AT_ONCE  # accepted and not yet closed again: it takes asyncio some rounds
_WAITING: Final = 1024  # connections that the kernel keeps until they are accepted
_OWN_FILES: Final = 128  # what the process itself opens: the store, files that come and go, pipes
_WANTED: Final = 4096
_MOST: Final = 2000


def most_connections() -> int:
    """Connections that this process can hold, after asking for as many open files as it may have.

    Raises EnvironmentFault where that is too few to serve anybody.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _WANTED:
        with contextlib.suppress(ValueError, OSError):
            wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    most = min(_MOST, soft - _UNSEEN - _OWN_FILES)
    if most < 1:
        least = _UNSEEN + _OWN_FILES + 1
        raise EnvironmentFault(
            f"this process may open {soft} files; a server needs {least}",
            remedy=f"raise the limit where it is started: ulimit -n {_WANTED}",
        )
    return most


class BoundedServer(uvicorn.Server):
    """uvicorn's server, whose kernel keeps many callers waiting, though few are accepted in one go."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then widen the kernel's queue: asyncio has one number for both."""
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(_WAITING)
