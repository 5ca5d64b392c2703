"""Whose loss it is: a step's loss by row and by source. It knows numbers that were read, no tensors and no model.

Legend: R rows of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from hone.pack import Pack, Step

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """What one source has in a loss: `loss` = sum(weight x nll) / sum(weight) over its rows."""

    loss: float
    weight: float
    """Sum of its rows' weights: the source's share in the whole."""

    def to_json(self) -> dict[str, float]:
        """As events hold it."""
        return {"loss": self.loss, "weight": self.weight}


@dataclass(frozen=True, eq=False)
class RowLosses:
    """Of each row of a step: `total` is sum(weight x nll), `weight` is sum(weight)."""

    step: Step
    total: Float64  # [R]
    weight: Float64  # [R]

    @classmethod
    def of(
        cls, step: Step, packs: Sequence[Pack], terms: Sequence[float], *, scale: float = 1.0
    ) -> RowLosses:
        """From the row terms of these Packs of the step, read one Pack after the other.

        `scale` is what the module was called with: terms are multiples of it. Rows of other Packs stay 0, so that
        the losses of several parts of a step can be added up.
        """
        total = np.zeros(len(step.row_names))
        weight = np.zeros(len(step.row_names))
        read = np.asarray(terms, dtype=np.float64)
        for pack in packs:
            rows = pack.num_rows
            total[:rows] += read[:rows] / scale
            weight[:rows] += _weights(pack)
            read = read[rows:]
        if read.size:
            raise ValueError("row terms belong to other Packs")
        return cls(step, total, weight)

    @classmethod
    def of_hands(
        cls,
        step: Step,
        hands: Sequence[Sequence[Pack]],
        told: Sequence[Sequence[float]],
        *,
        scale: float = 1.0,
    ) -> RowLosses | None:
        """From what every rank read: `hands` are the Packs of each, `told` the row terms of these, and after them those
        of Packs that only fill up. None where no terms are told.
        """
        real = [
            terms[: sum(pack.num_rows for pack in hand)]
            for hand, terms in zip(hands, told, strict=True)
        ]
        if not any(real):
            return None
        packs = [pack for hand in hands for pack in hand]
        return cls.of(step, packs, [term for terms in real for term in terms], scale=scale)

    @property
    def worst(self) -> list[tuple[str, float]]:
        """Rows that predict something, with the mean loss of each, the highest first."""
        means = [
            (name, float(total / weight))
            for name, total, weight in zip(
                self.step.row_names, self.total, self.weight, strict=True
            )
            if weight > 0
        ]
        return sorted(means, key=lambda row: -row[1])


def parts_of(rows: Sequence[RowLosses]) -> dict[str, Part]:
    """The part of each source that has a weight in these steps, by its name, in the order of the sources.

    The parts' losses, weighted by their weights, are the loss of all of them together.
    """
    totals: dict[str, list[float]] = {}
    weights: dict[str, list[float]] = {}
    for one in rows:
        names = one.step.sources
        for name in names:
            totals.setdefault(name, [])
            weights.setdefault(name, [])
        if not names:
            continue
        for source, total, weight in zip(one.step.row_sources, one.total, one.weight, strict=True):
            totals[names[source]].append(float(total))
            weights[names[source]].append(float(weight))
    return {
        name: Part(fsum(totals[name]) / weight, weight)
        for name, own in weights.items()
        if (weight := fsum(own)) > 0
    }


def _weights(pack: Pack) -> Float64:
    return np.bincount(pack.row, weights=pack.weight, minlength=pack.num_rows).astype(np.float64)
