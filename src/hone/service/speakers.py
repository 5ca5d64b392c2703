"""The servers that answer for base models and what was tuned from them: started when asked, ended when idle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from anyio import to_thread

from hone.config.surroundings import child_environment
from hone.serving.refusal import Refusal

logger = logging.getLogger("hone")

_IDLE_S: Final = 600.0
_MOST: Final = 2
_END_S: Final = 10.0


@dataclass
class Voice:
    """One server, and how many requests it has."""

    process: subprocess.Popen[bytes]
    base_url: str
    key: str
    busy: int = 0
    used: float = field(default_factory=time.monotonic)


class Speakers:
    """At most so many servers at a time, a base each; the one that was idle longest makes room."""

    def __init__(
        self, root: Path, models: Mapping[str, str], *, most: int = _MOST, idle_s: float = _IDLE_S
    ) -> None:
        self._root = root
        self._models = models
        self._most = most
        self._idle_s = idle_s
        self._voices: dict[str, Voice] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._lock = threading.Lock()

    @contextlib.asynccontextmanager
    async def voice(self, base: str) -> AsyncGenerator[Voice]:
        """The server of a base, which stays while it is used. Raises Refusal 503 where it does not start."""
        async with self._turns.setdefault(base, asyncio.Lock()):
            found = self._voices.get(base)
            if found is None or found.process.poll() is not None:
                found = await to_thread.run_sync(self._start, base)
            found.busy += 1
        try:
            yield found
        finally:
            found.busy -= 1
            found.used = time.monotonic()

    def look(self) -> None:
        """End servers that nobody has asked for a while."""
        if not self._lock.acquire(blocking=False):
            return  # one is starting, which may take its time
        try:
            for base, voice in list(self._voices.items()):
                idle = time.monotonic() - voice.used > self._idle_s and not voice.busy
                if idle or voice.process.poll() is not None:
                    self._end(base)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End every server."""
        with self._lock:
            for base in list(self._voices):
                self._end(base)

    @property
    def pids(self) -> list[int]:
        """The processes that live."""
        return [voice.process.pid for voice in self._voices.values()]

    def _start(self, base: str) -> Voice:
        with self._lock:
            self._voices.pop(base, None)
            self._make_room()
            key = secrets.token_urlsafe(32)
            words = [sys.executable, "-m", "hone.service.speaker", "--root", str(self._root)]
            words += ["--base", base, "--target", self._models[base], "--parent", str(os.getpid())]
            process = subprocess.Popen(  # noqa: S603 - words of ours
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env={**child_environment(os.environ), "HONE_API_KEY": key},
                start_new_session=True,
            )
            told = _first_line(process)
            if told.get("event") != "ready":
                process.kill()
                process.wait()
                logger.error("%s cannot answer: %s", base, told.get("message"))
                raise Refusal(
                    503,
                    f"the model {base!r} cannot answer now; the service's log says why",
                    param="model",
                    code="model_unavailable",
                    headers={"retry-after": "30", "x-should-retry": "false"},
                )
            self._voices[base] = Voice(process, str(told["base_url"]), key)
            return self._voices[base]

    def _make_room(self) -> None:
        idle = sorted((v.used, base) for base, v in self._voices.items() if not v.busy)
        while len(self._voices) >= self._most and idle:
            self._end(idle.pop(0)[1])
        if len(self._voices) >= self._most:
            raise Refusal(
                429,
                "as many models answer as can at a time; ask again",
                code="rate_limit_exceeded",
                headers={"retry-after": "10"},
            )

    def _end(self, base: str) -> None:
        voice = self._voices.pop(base)
        voice.process.terminate()
        try:
            voice.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            voice.process.kill()
            voice.process.wait()
        if voice.process.stdout is not None:
            voice.process.stdout.close()


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return {"event": "error", "message": "it ended without a word"}
    return found
