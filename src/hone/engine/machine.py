"""What this machine lets a process have: memory, processors, their instructions. No torch.

On Linux it reads what the kernel tells, with the limits of the control groups above this process.
"""

from __future__ import annotations

import os
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "bf16")
"""Instructions that decide how fast a step is."""


def available_bytes(root: Path = Path("/")) -> int:
    """Memory that can be had without swapping: the least of the machine's and of every control group's."""
    free = _meminfo(root, "MemAvailable")
    for limit, used in _group_limits(root):
        free = min(free, max(0, limit - used))
    return free


def memory_bytes(root: Path = Path("/")) -> int:
    """All memory that this process could ever have."""
    return min([_meminfo(root, "MemTotal"), *(limit for limit, _ in _group_limits(root))])


def group_limit_bytes(root: Path = Path("/")) -> int | None:
    """The tightest memory limit of a control group; None where there is none."""
    return min((limit for limit, _ in _group_limits(root)), default=None)


def allowed_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0))


def group_cores(root: Path = Path("/")) -> float | None:
    """Processors' worth of time that the control groups allow; None without a limit."""
    found = [_quota(folder) for folder in _groups(root)]
    return min((quota for quota in found if quota is not None), default=None)


def default_threads() -> int:
    """Threads of a step where nobody says a number: the cores allowed, or fewer by OMP_NUM_THREADS."""
    allowed = allowed_cores()
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(said)) if said.isdigit() and int(said) > 0 else allowed


def processor(root: Path = Path("/")) -> tuple[str, tuple[str, ...]]:
    """The processor's name, and those of its instructions that matter here."""
    try:
        first = (root / "proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return os.uname().machine, ()
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    told = {key.strip(): value.strip() for key, value in pairs}
    flags = set((told.get("flags") or told.get("Features") or "").split())
    return told.get("model name") or os.uname().machine, tuple(f for f in FLAGS if f in flags)


def resident_bytes(pid: int | str = "self", *, own: bool = False) -> int:
    """Memory that a process holds now, what it has mapped of files included (or, with `own`, without); 0 where
    it is gone."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - (int(shared) if own else 0)) * os.sysconf("SC_PAGE_SIZE")


def _meminfo(root: Path, name: str) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/meminfo has no {name}")


def _groups(root: Path) -> list[Path]:
    """The folders of this process's control group and of those above it: version 2, else 1's for memory."""
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = [base, base / "memory"]
    for line in lines:
        _, kinds, path = line.split(":", 2)
        at = base / "memory" if "memory" in kinds.split(",") else base if not kinds else None
        if at is not None:
            parts = [part for part in path.split("/") if part not in ("", "..")]
            found += [at.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    return list(dict.fromkeys(folder for folder in found if folder.is_dir()))


def _group_limits(root: Path) -> list[tuple[int, int]]:
    """(limit, used) in bytes of each control group with a limit; pages that can be dropped are not used."""
    found: list[tuple[int, int]] = []
    names = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    whole = _meminfo(root, "MemTotal")
    for folder in _groups(root):
        for limit_name, used_name, cached_name in names:
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None and limit < whole:
                cached = _statistic(folder / "memory.stat", cached_name)
                found.append((limit, max(0, used - cached)))
    return found


def _quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _statistic(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None
