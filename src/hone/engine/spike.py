"""When a loss jumps out of the recent ones. It knows numbers, no rows and no model."""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import Final

_RECENT: Final = 50  # steps that say what is usual
_LEAST: Final = 20  # steps before anything is called unusual
_SPREADS: Final = 6.0  # median absolute deviations, in units of a normal distribution's sigma
_FACTOR: Final = 1.5  # and at least so many times the median
_SIGMA: Final = 1.4826  # of a normal distribution, in median absolute deviations


class SpikeWatch:
    """Takes the loss of each step. Median and median absolute deviation are what one bad step cannot move
    (Hampel, 1974). A jump is told once, when it begins."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._is_high = False

    def take(self, loss: float) -> float | None:
        """What is usual (the median), where this loss is the beginning of a jump; else None."""
        recent, before = list(self._recent), self._is_high
        self._recent.append(loss)
        if len(recent) < _LEAST:
            return None
        usual = median(recent)
        spread = _SIGMA * median(abs(one - usual) for one in recent)
        self._is_high = loss > usual + _SPREADS * spread and loss > _FACTOR * usual
        return usual if self._is_high and not before else None
