"""The learning rate of each gradient step of a whole training, as one list. It knows no rows and no model.

With T steps, W of them warmup and D = T - W, the rate of the 0-based step s is

    s < W    floor + (peak - floor) * (s + 1) / W
    s >= W   with p = (s - W) / (D - 1), or 0 where D is 1:
             linear    peak - (peak - floor) * p
             cosine    floor + (peak - floor) * (1 + cos(pi * p)) / 2
             constant  peak

So the peak stands twice where there is a warmup, and the last step of a decay is at the floor: with a floor of 0
it moves no weight. These are ART's formulas, kept to the digit; `train.schedule` of a run has its own.
"""

from __future__ import annotations

import math
import warnings
from typing import Final, Literal

from hone.errors import ConfigError, nearest

ScheduleType = Literal["linear", "cosine", "constant"]
SCHEDULES: Final = ("linear", "cosine", "constant")


def create_lr_schedule(
    total_steps: int,
    peak_lr: float,
    method: ScheduleType = "linear",
    warmup_steps: int = 0,
    min_lr: float = 0.0,
) -> list[float]:
    """The rates of `total_steps` steps; none where that is 0 or less. Raises ConfigError for an unknown `method`."""
    check_schedule(method)
    check_rate(peak_lr, "peak_lr")
    check_rate(min_lr, "min_lr")
    decay_steps = total_steps - warmup_steps
    rates: list[float] = []
    for step in range(total_steps):
        if step < warmup_steps:
            rates.append(min_lr + (peak_lr - min_lr) * (step + 1) / warmup_steps)
            continue
        done = (step - warmup_steps) / (decay_steps - 1) if decay_steps > 1 else 0.0
        if method == "linear":
            rates.append(peak_lr - (peak_lr - min_lr) * done)
        elif method == "cosine":
            rates.append(min_lr + (peak_lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * done)))
        else:
            rates.append(peak_lr)
    return rates


def warmup_of(total_steps: int, warmup_ratio: float) -> int:
    """Steps of warmup, rounded down. Warns where it takes the whole training."""
    if not (math.isfinite(warmup_ratio) and warmup_ratio >= 0):
        raise ConfigError(
            f"warmup_ratio is a number from 0 on; found {warmup_ratio!r}",
            remedy="give the share of all steps in which the rate rises, e.g. 0.1",
        )
    steps = int(total_steps * warmup_ratio)
    if steps > total_steps > 0:
        warnings.warn(
            f"warmup_ratio={warmup_ratio:g}: the warmup has {steps} steps and the training {total_steps}, so the "
            "learning rate never reaches peak_lr",
            stacklevel=3,
        )
    return steps


def check_schedule(method: str) -> None:
    """Raise ConfigError for a schedule of another name."""
    if method not in SCHEDULES:
        raise ConfigError(f"unknown schedule {method!r}", remedy=nearest(str(method), SCHEDULES))


def check_rate(rate: object, name: str) -> None:
    """Raise ConfigError for what is no finite number from 0 on."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < math.inf:
        raise ConfigError(f"{name} is a number from 0 on; found {rate!r}", remedy="e.g. 2e-4")


def check_count(value: object, name: str, *, least: int = 1) -> None:
    """Raise ConfigError for what is no whole number from `least` on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is a whole number from {least} on; found {value!r}")
