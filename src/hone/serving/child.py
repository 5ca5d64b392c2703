"""A server in a process of its own, started from Python and ended with it. It knows no HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from hone.config.surroundings import child_environment
from hone.errors import HoneError

_END_S: Final = 10.0


class ServerProcess:
    """`python -m hone.serving` for the growing folder of adapters at `folder`.

    `with ServerProcess(folder, base="…", name="agent") as server:` gives `server.base_url`, which serves `agent`,
    the newest of `folder/checkpoints/NNNN`, and `agent@N`. It ends with `close()`, and by itself when this process
    is gone. What it prints beside is in `log`. Of this process's environment it gets no secret.
    """

    def __init__(
        self,
        folder: Path,
        *,
        base: str,
        name: str,
        port: int = 0,
        key: str | None = None,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Returns when it answers. Raises HoneError where it does not start, with its reason."""
        command = [sys.executable, "-m", "hone.serving", "--folder", str(folder), "--base", base]
        command += ["--name", name, "--port", str(port), "--parent", str(os.getpid())]
        surroundings = {**child_environment(os.environ), **(environment or {})}
        if key is not None:
            surroundings["HONE_API_KEY"] = key  # never among arguments, which everyone can read
        with contextlib.ExitStack() as stack:
            to: Any = subprocess.DEVNULL if log is None else stack.enter_context(log.open("ab"))
            self._process = subprocess.Popen(  # noqa: S603 - a list of words of ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=to,
                env=surroundings,
            )
        told = self._first_line()
        self.base_url = str(told["base_url"])
        self.port = int(told["port"])
        self.pid = self._process.pid

    def _first_line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        threading.Thread(target=self._process.stdout.read, daemon=True).start()
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            told = {"event": "error", "message": "it ended without a word"}
        if told.get("event") != "ready":
            self.close()
            raise HoneError(f"the server did not start: {told.get('message')}")
        return told

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and wait until it is gone."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
