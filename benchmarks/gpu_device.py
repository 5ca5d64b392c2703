"""The device that is measured on: its name, its memory, and how fast it multiplies matrices. It knows no model."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from statistics import median
from typing import Any

_SIDE = 8192  # of the square matrices
_TIMES = 12


def describe() -> dict[str, Any]:
    """The card, its driver, and versions."""
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["card"] = properties.name
        found["memory_gib"] = round(properties.total_memory / 2**30, 1)
        found["capability"] = f"{properties.major}.{properties.minor}"
        found["driver"] = _driver()
    found["packages"] = {
        name: importlib.util.find_spec(name.replace("-", "_")) is not None
        for name in ("peft", "triton", "liger-kernel", "trl", "datasets", "flash_attn")
    }
    return found


def _driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def product_rate(device: Any, *, small: bool) -> float:
    """TFLOP/s of one bf16 product of square matrices of random numbers: the median of twelve, after warming up."""
    import torch

    side = 256 if small else _SIDE
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    seconds: list[float] = []
    for _ in range(_TIMES + 3):
        wait(device)
        began = time.perf_counter()
        left @ right
        wait(device)
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / median(seconds[3:]) / 1e12


def wait(device: Any) -> None:
    """Until the device has done what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: Any) -> None:
    """Forget the most memory held so far."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory(device: Any) -> dict[str, float]:
    """The most memory held since `reset_peak`, by tensors and by the allocator, in GiB; of a CPU the process's."""
    import resource

    import torch

    if device.type == "cuda":
        return {
            "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30,
            "reserved_gib": torch.cuda.max_memory_reserved(device) / 2**30,
        }
    return {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
