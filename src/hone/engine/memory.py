"""The device's memory as the loop sees it: its peak, and giving back what is cached. It knows no Packs."""

from __future__ import annotations

import ctypes
import gc
import resource

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep what tensors give back, for the next tensors of this process.

    By default every tensor above a threshold is mapped afresh and its pages are cleared one fault at a
    time: half of all page faults of a step, and up to a fifth of its time. Elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: of the allocator on a GPU, of the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_caches(device: torch.device | None = None) -> None:
    """Collect garbage that holds tensors, and hand cached blocks back to a GPU."""
    gc.collect()
    if torch.cuda.is_initialized() and (device is None or device.type == "cuda"):
        torch.cuda.empty_cache()
