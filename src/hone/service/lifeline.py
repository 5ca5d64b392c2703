"""The lifeline of a job's process: a pipe that its worker holds. When it ends, so does the process, with its group.

The worker writes nothing on it. The system closes it when the worker dies, however it dies, so nothing has to ask
whether a process of some number is still the same one.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable


def hold(line: int, at_end: Callable[[], object] | None = None) -> None:
    """Do `at_end` (None: end this process and its group at once) when the pipe of this descriptor ends.

    Returns; a thread watches. It reads the descriptor itself: an object of Python's would be found locked when the
    interpreter ends, which then aborts.
    """
    work = at_end or _end
    threading.Thread(target=_watch, args=(line, work), name="lifeline", daemon=True).start()


def _watch(line: int, at_end: Callable[[], object]) -> None:
    while os.read(line, 4096):
        pass
    at_end()


def _end() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
