"""Sides measured in turn, round after round, and compared round by round. It knows no trainer.

On a machine that others use, speeds drift by minutes; two sides of one round see nearly the same machine.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import report

Measure = Callable[[], dict[str, Any]]
_RATES = ("tokens_per_cpu_second", "tokens_per_wall_second")


class Duel:
    """Named sides; the first one is compared with each other one."""

    def __init__(self) -> None:
        self._sides: dict[str, Measure] = {}
        self._rounds: dict[str, list[dict[str, Any]]] = {}

    def add(self, name: str, measure: Measure) -> None:
        """One more side."""
        self._sides[name] = measure
        self._rounds[name] = []

    def go(self, *, repeats: int) -> None:
        """Measure every side so often, in turn."""
        for _ in range(repeats):
            for name in self._sides:
                self._measure(name)

    def go_last(self) -> None:
        """Measure the side that was added last, once."""
        self._measure(list(self._sides)[-1])

    def _measure(self, name: str) -> None:
        found = self._sides[name]()
        self._rounds[name].append(found)
        print(f"  {name}: {report.rate(found)}", flush=True)

    def results(self) -> dict[str, Any]:
        """Every round, medians, and the first side's lead over each other one, round by round."""
        names = list(self._sides)
        first = self._rounds[names[0]]
        compared: dict[str, Any] = {}
        for name in names[1:]:
            pairs = [
                (a, b)
                for a, b in zip(first, self._rounds[name], strict=False)
                if "failed" not in a and "failed" not in b
            ]
            compared[name] = {
                rate: {
                    "pairs": [round(a[rate] / b[rate], 3) for a, b in pairs],
                    "median": round(median(a[rate] / b[rate] for a, b in pairs), 3),
                }
                for rate in _RATES
                if pairs
            }
        return {"rounds": self._rounds, "first": names[0], "first_over": compared}
