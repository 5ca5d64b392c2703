"""The hyperparameters that the wizard offers, from the number of rows. It knows no question."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from hone.errors import DataError

PEAK_LR: Final = 2e-4
SCHEDULE: Final = "linear"
SCHEDULES: Final = ("linear", "cosine", "constant")
BATCH_SIZE: Final = 2
INLINE_LR: Final = 1e-5
INLINE_BATCH_SIZE: Final = 1
GPU_MEMORY_UTILIZATION: Final = 0.7

_ROWS_WANTED: Final = 10_000  # rows that training sees, all epochs together
_MOST_EPOCHS: Final = 10
_WARMUP_SHARE: Final = 0.05  # of an epoch
_WARMUP_STEPS: Final = (10, 1000)


@dataclass(frozen=True)
class Hyperparameters:
    """How a training of some rows goes; the rate rises, then falls by the schedule."""

    epochs: int
    batch_size: int
    lr: float
    schedule: str
    warmup_ratio: float
    """Share of all gradient steps in which the rate rises. For one or two rows it is 1 or more."""


def hyperparameters(rows: int) -> Hyperparameters:
    """What suits so many rows: ART's formulas, to the digit (rounding is half to even). Raises DataError for none."""
    if rows < 1:
        raise DataError("there are no rows to train on", remedy="name at least one")
    epochs = max(1, min(_MOST_EPOCHS, round(_ROWS_WANTED / rows)))
    steps = math.ceil(rows * epochs / BATCH_SIZE)
    least, most = _WARMUP_STEPS
    warmup = max(least, min(most, round(math.ceil(rows / BATCH_SIZE) * _WARMUP_SHARE)))
    return Hyperparameters(epochs, BATCH_SIZE, PEAK_LR, SCHEDULE, round(warmup / steps, 4))


def gradient_steps(scenario: str, rows: int, epochs: int, batch_size: int) -> int:
    """How many batches there are: those of a file run on from one epoch into the next, others end with it."""
    if scenario == "jsonl":
        return math.ceil(rows * epochs / batch_size)
    return math.ceil(rows / batch_size) * epochs
