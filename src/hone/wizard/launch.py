"""Runs a script, looks in after two minutes, and says what to do when it ends badly. It prints nothing itself.

What the script writes goes where it would go without us; of its errors the end is kept as well, to be read.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

PATIENCE_SECONDS: Final = 120.0
_KEPT_BYTES: Final = 1 << 16
_GRACE_SECONDS: Final = 30.0
_OUT_OF_MEMORY: Final = re.compile(
    rb"out of memory|OutOfMemory|MemoryError|Cannot allocate memory|No available memory for the cache|"
    rb"less than desired GPU memory utilization",
    re.IGNORECASE,
)
_OUT_OF_MEMORY_CODE: Final = 5


@dataclass(frozen=True)
class Ended:
    """How a script ended: its exit code (negative: by that signal), whether memory was the reason, in how long."""

    code: int
    is_memory: bool
    seconds: float


def commands(script: str) -> dict[str, list[str]]:
    """The ways to run a script: `uv`, where that is installed, and this very interpreter."""
    python = {"python": [sys.executable, script]}
    return ({"uv": ["uv", "run", "python", script]} if shutil.which("uv") else {}) | python


def launch(
    command: list[str],
    folder: Path,
    look: Callable[[], bool],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Ended:
    """Run a command until it ends; `look` is called once it has run for a while, and says whether it goes on.

    Ctrl-C reaches the command as it reaches us: we wait until it has tidied up. Raises OSError where it cannot
    be started, KeyboardInterrupt after a Ctrl-C.
    """
    start = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(  # noqa: S603 - the user's own interpreter on the script that was just written
        command, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as process:
        tail = _Tail(process.stderr)
        try:
            try:
                process.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                if not look():
                    _end(process)
                process.wait()
        except KeyboardInterrupt:
            _wait_out(process)
            raise
        finally:
            if process.poll() is None:
                _end(process)
            tail.join()
    code = process.returncode
    is_memory = code in (_OUT_OF_MEMORY_CODE, -signal.SIGKILL) or (
        code != 0 and _OUT_OF_MEMORY.search(tail.content) is not None
    )
    return Ended(code, is_memory, time.monotonic() - start)


class _Tail:
    """Passes a stream on to our own standard error, and keeps its end."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        self.content = b""
        self._stream = stream
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the rest; a grandchild that holds the stream open is not waited for."""
        self._thread.join(2.0)

    def _pass_on(self) -> None:
        if self._stream is None:
            return
        output = sys.stderr.fileno() if sys.stderr is not None else None
        descriptor = self._stream.fileno()
        while block := os.read(descriptor, 1 << 14):
            self.content = (self.content + block)[-_KEPT_BYTES:]
            if output is not None:
                try:
                    os.write(output, block)
                except OSError:  # nobody reads any more; the script goes on
                    output = None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop as Ctrl-C would, then as a scheduler would, then by force."""
    for sign in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(sign)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return
    process.kill()
    process.wait()


def _wait_out(process: subprocess.Popen[bytes]) -> None:
    """The terminal has told it already; a second Ctrl-C asks again, firmly."""
    try:
        process.wait(_GRACE_SECONDS)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        _end(process)
