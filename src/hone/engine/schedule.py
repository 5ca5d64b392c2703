"""The learning rate of each step: a pure function of numbers. It knows no optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["linear", "cosine", "constant", "wsd"]
DecayShape = Literal["linear", "cosine", "sqrt"]


@dataclass(frozen=True)
class Schedule:
    """A rise of `warmup` steps, then a course from the peak towards `floor * peak`.

    With w warmup steps the rate is `peak * (step + 1) / (w + 1)` while step < w. What follows decays by a
    shape s(p) that falls from s(0) = 1 to s(1) = 0, with p the share of the decay that is done:
    `peak * (floor + (1 - floor) * s(p))`. linear is 1 - p, cosine (1 + cos(pi * p)) / 2 (Loshchilov and
    Hutter 2017, without restarts), both over all steps after the warmup; constant stays at the peak; wsd
    (warmup, stable, decay: Hu et al. 2024, MiniCPM) stays there until its last `decay` steps, which fall by
    `shape`, where sqrt is 1 - sqrt(p) (Haegele et al. 2024). The end, p = 1, lies just outside the run, so
    every step learns something even where the floor is 0.
    """

    peak: float
    steps: int
    name: ScheduleName
    warmup: int = 0
    floor: float = 0.0
    decay: int = 0
    shape: DecayShape = "sqrt"

    def rate(self, step: int) -> float:
        """The rate of the 0-based `step`; ValueError for one outside the run."""
        if not 0 <= step < self.steps:
            raise ValueError(f"step {step} is not one of {self.steps} steps")
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        if self.name == "constant":
            return self.peak
        length, shape = self.steps - self.warmup, self.name
        if self.name == "wsd":
            length, shape = min(self.decay, length), self.shape
        start = self.steps - length
        if step < start:
            return self.peak
        left = _left(shape, (step - start) / length)
        return self.peak * (self.floor + (1.0 - self.floor) * left)


@dataclass(frozen=True)
class Rates:
    """A rate for each step, as given: those of the 0-based steps from `first` on."""

    first: int
    rates: tuple[float, ...]

    def rate(self, step: int) -> float:
        """The rate of a step; ValueError for one that has none."""
        if not self.first <= step < self.first + len(self.rates):
            raise ValueError(
                f"step {step} is not one of the {len(self.rates)} from {self.first} on"
            )
        return self.rates[step - self.first]


def _left(shape: str, done: float) -> float:
    """What is left of a decay, 1 to 0, where the share `done` of it is over."""
    if shape == "linear":
        return 1.0 - done
    if shape == "sqrt":
        return 1.0 - math.sqrt(done)
    return 0.5 * (1.0 + math.cos(math.pi * done))


def share_of_steps(steps: int, ratio: float) -> int:
    """So many steps as the ratio's share of all, rounded up."""
    return min(steps, math.ceil(ratio * steps - 1e-9))  # 0.07 * 100 is 7.000000000000001
