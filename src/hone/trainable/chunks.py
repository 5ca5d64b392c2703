"""A training cut into chunks, each for one call of `train_sft`: rows, rates, and where it stands in the whole.

It knows no model. A step is a gradient step of the whole training, counted from 0; batches never cross an epoch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from hone.trainable.schedule import ScheduleType, check_count, create_lr_schedule, warmup_of
from hone.trainable.settings import TrainSFTConfig
from hone.trainable.trajectory import Trajectory


@dataclass(frozen=True)
class SFTChunk:
    """What one call of `train_sft` gets, and where it begins."""

    trajectories: list[Trajectory]
    config: TrainSFTConfig
    """With a learning rate for each batch of the chunk."""
    step: int
    """Gradient steps of the whole training before this chunk: the `initial_step` that begins with it."""
    epoch: int
    """0-based."""
    epoch_step: int
    """Gradient steps of its epoch before this chunk."""


def create_sft_dataset_iterator(
    trajectories: Sequence[Trajectory],
    chunk_size: int = 10,
    epochs: int = 1,
    batch_size: int = 2,
    peak_lr: float = 2e-4,
    schedule_type: ScheduleType = "linear",
    warmup_ratio: float = 0.1,
    shuffle: bool = True,
    seed: int = 42,
    initial_step: int = 0,
    show_progress: bool = True,
) -> Iterator[SFTChunk]:
    """Chunks of `chunk_size` batches over all epochs, each with its part of one schedule.

    An epoch has ceil(rows / batch_size) batches and an order of its own, drawn from `seed` + epoch. With
    `initial_step` the stream is the exact rest of the whole one: the chunk that holds that step is cut at its
    beginning, all later ones are the same. `show_progress` writes a line to a terminal for each chunk. Raises
    ConfigError at once for numbers that cannot be meant.
    """
    check_count(chunk_size, "chunk_size")
    check_count(epochs, "epochs")
    check_count(batch_size, "batch_size")
    check_count(initial_step, "initial_step", least=0)
    rows = list(trajectories)
    total = math.ceil(len(rows) / batch_size) * epochs
    warmup = warmup_of(total, warmup_ratio)
    rates = create_lr_schedule(total, peak_lr, method=schedule_type, warmup_steps=warmup)
    order = seed if shuffle else None
    return _chunks(rows, rates, chunk_size, batch_size, order, initial_step, show_progress)


def _chunks(
    rows: list[Trajectory],
    rates: list[float],
    chunk_size: int,
    batch_size: int,
    seed: int | None,
    step: int,
    shown: bool,
) -> Iterator[SFTChunk]:
    """The stream from `step` on; `seed` is None where rows keep their order."""
    per_epoch = math.ceil(len(rows) / batch_size)
    ordered, ordered_epoch = rows, -1
    while step < len(rates):
        epoch, within = divmod(step, per_epoch)
        if seed is not None and epoch != ordered_epoch:
            ordered, ordered_epoch = list(rows), epoch
            Random(seed + epoch).shuffle(ordered)
        end = min((within // chunk_size + 1) * chunk_size, per_epoch)
        batches = end - within
        if shown and sys.stderr.isatty():
            sys.stderr.write(
                f"sft: gradient steps {step + 1} to {step + batches} of {len(rates)}\n"
            )
        yield SFTChunk(
            trajectories=ordered[within * batch_size : end * batch_size],
            config=TrainSFTConfig(
                learning_rate=rates[step : step + batches], batch_size=batch_size
            ),
            step=step,
            epoch=epoch,
            epoch_step=within,
        )
        step += batches
