"""To which lengths Packs are rounded up on a GPU, so that compiled code and memory meet few of them. Numbers only."""

from __future__ import annotations

_FINEST = 128  # tokens: the block of the attention kernels
_STEPS = 16  # buckets from one power of two to the next: at most 1/16 of a Pack is filling


def bucket(tokens: int) -> int:
    """The least bucket of at least `tokens` tokens; powers of two are buckets."""
    step = max(_FINEST, (1 << (max(1, tokens) - 1).bit_length() >> 1) // _STEPS)
    return -(-tokens // step) * step
