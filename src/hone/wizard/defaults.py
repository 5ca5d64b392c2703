"""What the wizard offers beside the defaults of trainable models, and how many steps that makes. It knows no question."""

from __future__ import annotations

import math
from typing import Final

INLINE_LR: Final = 1e-5
INLINE_BATCH_SIZE: Final = 1
GPU_MEMORY_UTILIZATION: Final = 0.7


def gradient_steps(scenario: str, rows: int, epochs: int, batch_size: int) -> int:
    """How many batches there are: those of a file run on from one epoch into the next, others end with it."""
    if scenario == "jsonl":
        return math.ceil(rows * epochs / batch_size)
    return math.ceil(rows / batch_size) * epochs
