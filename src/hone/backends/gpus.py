"""How many GPUs a run may use, known without loading torch."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/gpus")


def visible_gpus() -> int:
    """GPUs of this machine that CUDA_VISIBLE_DEVICES leaves; 0 where torch is built for the CPU alone."""
    try:
        if version("torch").endswith("+cpu"):
            return 0
    except PackageNotFoundError:
        return 0
    try:
        present = sum(1 for _ in _DRIVER.iterdir())
    except OSError:
        return 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return present
    wanted = [name for name in named.split(",") if name.strip() and name.strip() != "-1"]
    return min(present, len(wanted))
