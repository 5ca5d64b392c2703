"""The learning rate of each step: a pure function of numbers. It knows no optimizer."""

from __future__ import annotations

import math
from typing import Literal

ScheduleName = Literal["linear", "cosine", "constant"]


def warmup_steps(steps: int, warmup_ratio: float) -> int:
    """Steps in which the rate rises: the ratio's share of all, rounded up."""
    return min(steps, math.ceil(warmup_ratio * steps - 1e-9))  # 0.07 * 100 is 7.000000000000001


def learning_rate_at(
    step: int, *, steps: int, peak: float, schedule: ScheduleName, warmup_ratio: float
) -> float:
    """The rate of the 0-based `step` of `steps`.

    With w warmup steps: `peak * (step + 1) / (w + 1)` while step < w. Then, with
    p = (step - w) / (steps - w), linear is `peak * (1 - p)`, cosine `peak * (1 + cos(pi * p)) / 2`
    (Loshchilov and Hutter 2017, without restarts), constant `peak`. The ends, where the rate would be 0,
    lie just outside the run, so every step learns something.
    """
    if not 0 <= step < steps:
        raise ValueError(f"step {step} is not one of {steps} steps")
    warmup = warmup_steps(steps, warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / (steps - warmup)
    if schedule == "linear":
        return peak * (1.0 - done)
    if schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * done))
    return peak
