"""The lifeline of a job's process: a pipe that its worker holds. When it ends, so does the process, with its group.

The worker writes nothing on it. The system closes it when the worker dies, however it dies, so nothing has to ask
whether a process of some number is still the same one.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import BinaryIO


def hold(line: BinaryIO) -> None:
    """End this process and its group at once when `line` ends. Returns; a thread watches."""
    threading.Thread(target=_watch, args=(line,), name="lifeline", daemon=True).start()


def _watch(line: BinaryIO) -> None:
    while line.read(4096):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
