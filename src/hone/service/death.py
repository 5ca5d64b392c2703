"""Why a job's process died without a word: what the system counted meanwhile. It knows no job."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Kills:
    """How many processes the system has killed for want of memory, since its start."""

    machine: int
    group: int
    """Within our own control group: a container, or a unit of systemd."""

    @classmethod
    def now(cls, proc: Path = _PROC, groups: Path = _GROUPS) -> Kills:
        """Zero where the system does not say."""
        machine = _count(proc / "vmstat", "oom_kill")
        place = ""
        with contextlib.suppress(OSError):
            for line in (proc / "self" / "cgroup").read_text().splitlines():
                if line.startswith("0::"):
                    place = line[3:].strip("/")
        return cls(machine, _count(groups / place / "memory.events", "oom_kill"))

    def since(self, before: Kills) -> bool:
        """Whether one was killed for want of memory since then."""
        return self.machine > before.machine or self.group > before.group


def cause_of(code: int, before: Kills, after: Kills) -> tuple[str, str]:
    """(code, message) for the end of a process that left no outcome: `code` as subprocess tells it."""
    if code == -signal.SIGKILL and after.since(before):
        return (
            "out_of_memory",
            "the machine ran out of memory, and the system killed the job's process",
        )
    if code < 0:
        name = signal.Signals(-code).name
        return "process_died", f"the job's process was ended by {name}"
    return "process_died", f"the job's process ended with exit code {code} and said nothing"


def _count(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
