"""The device's memory as the loop sees it: its peak, and giving back what is cached. It knows no Packs."""

from __future__ import annotations

import gc
import resource

import torch


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
