"""The training process as its starter sees it: started, asked, heard, ended. It knows orders, not what they mean."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from hone.backends.local_wire import error_of
from hone.config.surroundings import child_environment
from hone.errors import EnvironmentFault, HoneError

_PROGRAM: Final = "hone.backends.local_child"
_GRACE_SECONDS: Final = 30.0

Hear = Callable[[Mapping[str, Any]], object]


class TrainingProcess:
    """One process over one model. Used by one thread at a time, but for `stop` and `close`."""

    def __init__(self, hello: Mapping[str, Any], log: Path) -> None:
        self._log = log
        self._turn = threading.Lock()
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - a module of ours
                [sys.executable, "-m", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the script, which ends it
            )
        self._send(hello)

    @property
    def pid(self) -> int:
        """Its number, which is that of its process group too."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it takes orders."""
        return self._process.poll() is None

    def ask(self, order: Mapping[str, Any] | None, hear: Hear) -> dict[str, Any]:
        """Give an order (None: the one that it was started with) and wait for its answer; `hear` gets its events.

        Raises the HoneError that it came to, EnvironmentFault where the process ended instead.
        """
        if order is not None:
            self._send(order)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
            if "answer" in message:
                return message["answer"]
            if "fault" in message:
                raise error_of(message["fault"], log=str(self._log))
            hear(message)
        raise self._death()

    def stop(self) -> None:
        """Ask it to end its call after the step that it is in; it keeps what it has."""
        try:
            self._send({"do": "stop"})
        except HoneError:
            return  # it is gone, and whoever waits for its answer is told

    def close(self, *, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Let it end, and end it with all that it started if it does not."""
        with self._turn:
            if self._process.stdin is not None and not self._process.stdin.closed:
                with contextlib.suppress(OSError):  # it has ended already
                    self._process.stdin.close()
        try:
            self._process.wait(timeout=grace_seconds)
        except subprocess.TimeoutExpired:
            self._kill()
        else:
            self._kill()  # what it started and left
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing of it is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _send(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            with self._turn:
                self._process.stdin.write(json.dumps(order).encode() + b"\n")
                self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._death() from error

    def _death(self) -> EnvironmentFault:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            how = "it closed its output"
        else:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        short = " (the system kills so when memory is short)" if "KILL" in how else ""
        return EnvironmentFault(
            f"the training process ended: {how}{short}",
            where=str(self._log),
            remedy="the log says why; the same call goes on from its last state",
        )


def _environment() -> dict[str, str]:
    """The environment without secrets: models are fetched before, trackers are not told from there."""
    offline = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return child_environment(os.environ) | offline
