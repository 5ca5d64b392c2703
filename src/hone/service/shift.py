"""The workers of a service: a process for each slot, started with the service, again when it dies, ended with it."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hone.config.surroundings import child_environment

logger = logging.getLogger("hone")

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_GOOD_S: Final = 60.0
_END_S: Final = 80.0


@dataclass
class _Slot:
    words: list[str]
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    wait: float = _FIRST_WAIT_S
    next_at: float = 0.0


@dataclass(frozen=True)
class Slots:
    """How many workers, and what each of them has."""

    count: int = 1
    devices: Sequence[str] = ()
    """Indices of GPUs, a worker for each; none: `count` workers on the CPU."""
    threads: int | None = None
    ray: str | None = None
    """Address of a Ray cluster on which jobs run; empty: the one that this machine is part of."""
    compute: Sequence[str] = field(default_factory=list[str])


class Shift:
    """Keeps a worker alive in each slot. `look` is called again and again."""

    def __init__(self, root: Path, models: Mapping[str, str], slots: Slots) -> None:
        words = [sys.executable, "-m", "hone.service.worker", "--root", str(root), "--lifeline"]
        for name, target in models.items():
            words += ["--model", f"{name}={target}"]
        for one in slots.compute:
            words += ["--compute", one]
        if slots.threads is not None:
            words += ["--threads", str(slots.threads)]
        if slots.ray is not None:
            words.append(f"--ray={slots.ray}")
        if slots.devices:
            more = [["--slot", f"gpu{name}", "--device", name] for name in slots.devices]
        else:
            more = [["--slot", str(n)] for n in range(slots.count)]
        self._slots = [_Slot([*words, *one]) for one in more]

    def look(self) -> None:
        """Start what does not run; one that dies at once is started again later each time."""
        at = time.monotonic()
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is not None:
                code = slot.process.returncode
                slot.wait = (
                    _FIRST_WAIT_S
                    if at - slot.began > _GOOD_S
                    else min(_LONGEST_WAIT_S, slot.wait * 2)
                )
                logger.error(
                    "a worker ended with code %s; it is started again in %.1f s", code, slot.wait
                )
                self._let_go(slot)
                slot.next_at = at + slot.wait
            if slot.process is None and at >= slot.next_at:
                slot.began = at
                slot.process = subprocess.Popen(  # noqa: S603 - words of ours
                    slot.words,
                    stdin=subprocess.PIPE,
                    env=child_environment(os.environ),
                    start_new_session=True,
                )

    @property
    def pids(self) -> list[int]:
        """The processes that live."""
        return [slot.process.pid for slot in self._slots if slot.process is not None]

    def end(self) -> None:
        """Let each save and give back what it has; end those that do not."""
        for slot in self._slots:
            if slot.process is not None and slot.process.stdin is not None:
                with contextlib.suppress(OSError):
                    slot.process.stdin.close()
        until = time.monotonic() + _END_S
        for slot in self._slots:
            if slot.process is not None:
                try:
                    slot.process.wait(max(0.1, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    slot.process.kill()
                    slot.process.wait()
                slot.process = None

    def _let_go(self, slot: _Slot) -> None:
        process: Any = slot.process
        with contextlib.suppress(OSError):
            process.stdin.close()
        slot.process = None
