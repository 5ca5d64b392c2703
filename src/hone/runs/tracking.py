"""Starts the trackers of a run, each in a process of its own, and hears how they fare. It knows no library.

A tracker follows the run's events on the disk, so nothing is handed to it and nothing waits for it: whatever it does,
at any moment, the run goes on, and a `notice` says once what became of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, cast

import hone
from hone.errors import HoneError
from hone.runs.events import Say
from hone.runs.folder import RunFolder
from hone.runs.secrets import without_secrets

_SILENT_SECONDS: Final = 60.0  # without a sign of life, before it is said that a tracker hangs
_GRACE_SECONDS: Final = 30.0  # after the run, for what is still to be sent
_UNTOLD_SECONDS: Final = 2.0  # of them, before a user is told what is waited for
_HURRIED_SECONDS: Final = 2.0  # the same where a user insists on the end
_PROGRAM: Final = "hone.runs.trackers"
_QUIET: Final = {
    "GIT_PYTHON_REFRESH": "quiet",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "OMP_NUM_THREADS": "1",
    "WANDB_ERROR_REPORTING": "false",
}


class Tracking:
    """`with Tracking(folder, ["wandb"], say): train()`. Leaving it waits a while for what is still to be sent."""

    def __init__(
        self,
        folder: RunFolder,
        trackers: Sequence[str],
        say: Say,
        *,
        silent_seconds: float = _SILENT_SECONDS,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        self._say = say
        self._grace_seconds = grace_seconds
        self._watches = [
            _Watch(name, folder.path, say, silent_seconds) for name in dict.fromkeys(trackers)
        ]

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        for watch in self._watches:
            watch.join(max(0.0, until - time.monotonic()))

    @property
    def pids(self) -> list[int]:
        """The processes that were started."""
        return [watch.process.pid for watch in self._watches if watch.process is not None]

    def __enter__(self) -> Tracking:
        for watch in self._watches:
            watch.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        hurried = kind is not None and not issubclass(kind, Exception)
        patience = _HURRIED_SECONDS if hurried else self._grace_seconds
        try:
            for watch in self._watches:
                watch.end()
            patience = min(patience, self._grace_seconds)
            self._wait(min(patience, _UNTOLD_SECONDS))
            if any(watch.is_alive for watch in self._watches) and not hurried:
                with contextlib.suppress(HoneError):
                    self._say("phase", name="tracking")
                self._wait(patience - _UNTOLD_SECONDS)
        finally:
            for watch in self._watches:
                watch.kill()


class _Watch:
    """One tracker's process, and the thread that hears it."""

    def __init__(self, name: str, folder: Path, say: Say, silent_seconds: float) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = folder
        self._say = say
        self._silent_seconds = silent_seconds
        self._threads: list[threading.Thread] = []
        self._heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._has_failed = False
        self._step = 0

    def start(self) -> None:
        command = [sys.executable, "-P", "-m", _PROGRAM, self.name, str(self._folder)]
        try:
            self.process = subprocess.Popen(  # noqa: S603 - a module of ours
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(os.environ),
                start_new_session=True,  # Ctrl-C is for the run, which ends it
            )
        except OSError as error:
            self._fail(f"its process cannot be started: {error}")
            return
        for work in (self._read, self._listen):
            thread = threading.Thread(target=work, name=f"hone-{self.name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        """Let it know that the run is over."""
        if self.process is not None and self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except OSError:  # it is gone already, and that was told
                return

    def join(self, seconds: float) -> None:
        """Wait until it has said how it ended."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def is_alive(self) -> bool:
        """Whether more may be heard of it."""
        return any(thread.is_alive() for thread in self._threads)

    def kill(self) -> None:
        """End it and all that it started, if it has not ended by itself."""
        if self.process is None:
            return
        if self.is_alive:
            self._fail(
                "it was not ready when the run was over, and was ended; what it has not got is in the run's events"
            )
        with contextlib.suppress(ProcessLookupError):  # nothing of it is left
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.join(5.0)

    def _read(self) -> None:
        """Lines of the process to the queue; None after the last."""
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self._heard.put(cast("dict[str, Any]", json.loads(line)))
            except ValueError:
                continue  # no line of ours
        self._heard.put(None)

    def _listen(self) -> None:
        is_silent = False
        is_done = False
        while True:
            try:
                told = self._heard.get(timeout=self._silent_seconds)
            except queue.Empty:
                if not is_silent:
                    seconds = f"{self._silent_seconds:.0f} seconds"
                    self._tell("tracker-silent", f"has not been heard of for {seconds}")
                is_silent = True
                continue
            if told is None:
                break
            is_silent = False
            is_done = is_done or "done" in told
            self._hear(told)
        if not is_done:
            self._fail("its process ended")

    def _hear(self, told: Mapping[str, Any]) -> None:
        if "failed" in told:
            self._fail(str(told["failed"]))
        elif "notice" in told:
            self._tell("tracker", str(told["notice"]))
        elif "place" in told:
            place = without_secrets(str(told["place"]), os.environ)
            self._say_safely("tracking", tracker=self.name, place=place)

    def _fail(self, reason: str) -> None:
        """Say, once, that it gets no more of this run."""
        if not self._has_failed:
            self._has_failed = True
            self._tell("tracker-failed", f"gets no more of this run: {reason}")

    def _tell(self, code: str, message: str) -> None:
        text = without_secrets(f"{self.name}: {message}", os.environ)
        self._say_safely("notice", code=code, message=text)

    def _say_safely(self, event: str, **fields: object) -> None:
        try:
            self._say(event, **fields)
        except HoneError:
            return  # the events cannot be written: the run itself stops over that


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The run's own, keys for the trackers included: they come from there and from nowhere else."""
    package = str(Path(hone.__file__).resolve().parents[1])
    said = environment.get("PYTHONPATH")
    path = package if not said else f"{package}{os.pathsep}{said}"
    return {**environment, **_QUIET, "PYTHONPATH": path}
