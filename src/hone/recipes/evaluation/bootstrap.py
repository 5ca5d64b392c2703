"""Confidence intervals by the paired bootstrap over rows. It knows sums, and not what they are sums of.

Rows are drawn with replacement, as many as there are, the same ones for both models (Efron & Tibshirani, An
Introduction to the Bootstrap, 1993, ch. 13 for the percentile interval; Koehn, Statistical Significance Tests for
Machine Translation Evaluation, 2004, for the pairing). A row's answers stay together, because they are no independent
observations. With n rows, statistics s_r of row r and a measure v:

    value = v(sum_r s_r);   draw b takes rows r_1 .. r_n and gives v_b = v(sum_i s_{r_i});
    interval = the (1 - level) / 2 and (1 + level) / 2 quantiles of v_1 .. v_B (of tuned_b - base_b for the difference).

Legend: R rows, K statistics of a row, B draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Value = Callable[[Floats], float]
"""From sums [K] to a measure; NaN where they allow none."""

_ROWS_AT_ONCE: Final = 2_000_000  # rows drawn at a time, over several draws


@dataclass(frozen=True)
class Interval:
    """A measure, and between what it lies with the level's confidence; None where it cannot be said."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero: for a difference, that there is one."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Draws:
    """How the bootstrap draws. The same seed gives the same rows, whatever is measured."""

    count: int = 2000
    seed: int = 0
    level: float = 0.95


def sums(statistics: list[Floats], draws: Draws) -> list[Floats]:
    """For each of several [R, K]: its sums [B, K] over the drawn rows, which are the same for all of them."""
    rows = statistics[0].shape[0]
    assert all(one.shape[0] == rows for one in statistics), "pairs of rows"
    found = [np.empty((draws.count, one.shape[1])) for one in statistics]
    random: Any = np.random.default_rng(draws.seed)
    at_once = max(1, _ROWS_AT_ONCE // max(1, rows))
    for begin in range(0, draws.count, at_once):
        end = min(draws.count, begin + at_once)
        counts = np.empty((end - begin, rows))
        for b in range(end - begin):
            drawn: NDArray[np.int64] = random.integers(0, rows, rows)
            counts[b] = np.bincount(drawn, minlength=rows)
        for one, out in zip(statistics, found, strict=True):
            out[begin:end] = counts @ one
    return found


def intervals(
    tuned: Floats, base: Floats | None, value: Value, draws: Draws
) -> tuple[Interval, Interval | None, Interval | None]:
    """Of `tuned` [R, K], of `base` [R, K] and of the difference, tuned minus base."""
    both = [tuned] if base is None else [tuned, base]
    drawn = [np.array([value(row) for row in one]) for one in sums(both, draws)]
    points = [value(one.sum(axis=0)) for one in both]
    first = _interval(points[0], drawn[0], draws)
    if base is None:
        return first, None, None
    difference = _interval(points[0] - points[1], drawn[0] - drawn[1], draws)
    return first, _interval(points[1], drawn[1], draws), difference


def _interval(point: float, drawn: Floats, draws: Draws) -> Interval:
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(point):
        return Interval(None, None, None)
    if known.size == 0:
        return Interval(float(point), None, None)
    tail = (1 - draws.level) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(point), float(low), float(high))
