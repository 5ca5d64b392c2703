"""The device's memory as the loop sees it: its peak, and giving back what is cached. It knows no Packs."""

from __future__ import annotations

import ctypes
import gc
import os
import resource

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
_MAPPED_BYTES = 2**19  # tensors from here on are mapped by themselves where memory is spared
_KERNELS_KEPT = 64  # a Pack takes about 20
_MOST_MAPS = 2**15  # below what the kernel allows a process


def settle_memory(*, recomputes: bool) -> None:
    """How this process, which is to train, deals with memory that tensors give back."""
    few_products_kept()
    if recomputes:
        give_freed_memory_back()
    else:
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Have glibc keep what tensors give back, for the next tensors of this process.

    By default every tensor above a threshold is mapped afresh and its pages are cleared one fault at a
    time: half of all page faults of a step, and up to a fifth of its time. Elsewhere nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_freed_memory_back() -> None:
    """Have glibc hand back at once what a larger tensor held: the opposite of `keep_freed_memory`.

    Kept memory is used again only where a gap is large enough for the next tensor and its alignment, which
    after recomputing layers is seldom so: a pass over 16 small layers held 232 MiB of which 48 were in use, and
    so holds 56, for 1.7 times the CPU time at 256 features (torch 2.13, glibc 2.36).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_MMAP_MAX, _MOST_MAPS)


def few_products_kept() -> None:
    """Have oneDNN, and torch's own cache before it, keep the bf16 products of a few Packs; a user's own numbers stay.

    A product is compiled for its number of tokens, which no two Packs have in common. By default each cache keeps
    1024, about half a MiB each, strewn over the heap: bf16 runs grew by 250 MiB a step, to three times what they
    used. Both are read once, before the first product.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(_KERNELS_KEPT))


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
