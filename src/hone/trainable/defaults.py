"""What a training of so many rows is given where its user says nothing: the values that the wizard offers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hone.errors import DataError
from hone.trainable.schedule import ScheduleType

_TRAINED_ROWS = 10_000
_MOST_EPOCHS = 10
_BATCH_SIZE = 2
_PEAK_LR = 2e-4
_WARMUP_SHARE_OF_EPOCH = 0.05
_LEAST_WARMUP, _MOST_WARMUP = 10, 1000


@dataclass(frozen=True)
class Hyperparameters:
    """Values for `train_sft_from_file` and `create_sft_dataset_iterator`, under their names."""

    epochs: int
    batch_size: int
    peak_lr: float
    schedule_type: ScheduleType
    warmup_ratio: float


def default_hyperparameters(num_rows: int) -> Hyperparameters:
    """With n rows: clamp(round(10000 / n), 1, 10) epochs in batches of 2, and a warmup of a twentieth of an epoch, 10
    to 1000 steps. Below three rows that is the whole training or more. Raises DataError where there is no row.
    """
    if num_rows < 1:
        raise DataError("there are no rows to train on", remedy="name a file that has some")
    epochs = max(1, min(_MOST_EPOCHS, round(_TRAINED_ROWS / num_rows)))
    total = math.ceil(num_rows * epochs / _BATCH_SIZE)
    of_epoch = math.ceil(num_rows / _BATCH_SIZE) * _WARMUP_SHARE_OF_EPOCH
    warmup = max(_LEAST_WARMUP, min(_MOST_WARMUP, round(of_epoch)))
    return Hyperparameters(epochs, _BATCH_SIZE, _PEAK_LR, "linear", round(warmup / total, 4))
