"""Which machine and which versions a measurement was made with. It measures nothing."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "bf16")
_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "trl",
    "datasets",
    "numpy",
    "tokenizers",
)


def describe() -> dict[str, Any]:
    """The kind of machine, its load now, versions, and the date."""
    info = _cpuinfo()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": info.get("model name", platform.machine()),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in _FLAGS if flag in info.get("flags", "").split()],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def in_words(machine: dict[str, Any]) -> str:
    """One line of it."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    flags = " ".join(machine["flags"]) or "no vector flags known"
    return (
        f"{machine['date']}, {machine['cpu']} ({flags}), {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, load {machine['load']} at the start; "
        f"Python {machine['python']}, {versions}"
    )


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
