"""Which rows of a step gave a loss that is not a number. It knows no file and changes no weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hone.engine.ahead import Source
from hone.engine.cost import Speeds
from hone.engine.deal import deal
from hone.engine.strategy import Strategy
from hone.pack import Pack, Step


@dataclass(frozen=True)
class NotFinite:
    """What is known of a step whose loss or gradient is not a number.

    `suspects` are the rows whose loss is not a number when they run alone; where there is none, the
    trouble is in the gradients.
    """

    step: int  # counted from 1
    grad_norm: float
    packs: tuple[tuple[float, int, tuple[str, ...], int], ...]  # loss, tokens, rows, rank
    rows: dict[str, float]  # mean loss of each row alone
    ranks: int = 1

    @property
    def loss(self) -> float:
        """Of the whole step."""
        return sum(pack[0] for pack in self.packs)

    @property
    def suspects(self) -> tuple[str, ...]:
        """Rows that fail alone; with several ranks, and the rank that had them in the step."""
        names = [name for name, loss in self.rows.items() if not math.isfinite(loss)]
        if self.ranks == 1:
            return tuple(names)
        had = {name: rank for _, _, rows, rank in self.packs for name in rows}
        return tuple(f"{name} (rank {had.get(name, 0)})" for name in names)

    def as_json(self) -> dict[str, object]:
        """For the dump; numbers that are none are written as text, since JSON has no NaN."""
        return {
            "step": self.step,
            "grad_norm": _text(self.grad_norm),
            "packs": [
                {"loss": _text(loss), "tokens": tokens, "rows": list(rows), "rank": rank}
                for loss, tokens, rows, rank in self.packs
            ],
            "rows": [{"row": name, "loss": _text(loss)} for name, loss in self.rows.items()],
            "suspects": list(self.suspects),
        }


def report_not_finite(
    strategy: Strategy,
    source: Source,
    step: Step,
    packs: Sequence[Pack],
    *,
    losses: Sequence[float],
    norm: float,
    speeds: Speeds,
) -> NotFinite:
    """Run each row of a failed step on its own, without gradients, and put together what all ranks know.

    `packs` are this rank's own, with their `losses`.
    """
    ranks = strategy.ranks
    mine = [
        (loss, pack.num_tokens, [step.row_names[row] for row in _rows(pack)], ranks.rank)
        for loss, pack in zip(losses, packs, strict=True)
        if _is_real(pack)
    ]
    told = ranks.gather({"packs": mine, "rows": _losses_alone(strategy, source, step, speeds)})
    return NotFinite(
        step=step.index + 1,
        grad_norm=norm,
        packs=tuple((a, b, tuple(names), r) for one in told for a, b, names, r in one["packs"]),
        rows=_means([part for one in told for part in one["rows"]], step.row_names),
        ranks=ranks.world,
    )


def _losses_alone(
    strategy: Strategy, source: Source, step: Step, speeds: Speeds
) -> list[tuple[str, float, float]]:
    """(row, loss, weight) of each Example of this rank's share, standing alone, with the step's own noise."""
    found: list[tuple[str, float, float]] = []
    alone = deal(source.step(step.index, 1).packs, strategy.ranks.world, speeds)
    with torch.no_grad():
        for pack in strategy.passes(alone):
            strategy.ranks.pack(f"the rows of step {step.index + 1}, one by one")
            loss = float(strategy.forward(pack, 1.0))
            if _is_real(pack):
                weight = float(pack.weight.sum())
                found += [(step.row_names[row], loss, weight) for row in _rows(pack)]
    return found


def _means(parts: Sequence[Any], names: Sequence[str]) -> dict[str, float]:
    sums, weights = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for name, loss, weight in parts:
        sums[name] += loss
        weights[name] += weight
    return {name: sums[name] / weights[name] if weights[name] else 0.0 for name in sums}


def _is_real(pack: Pack) -> bool:
    """Not one that only keeps a rank in step with the others."""
    return bool(pack.weight.any())


def _rows(pack: Pack) -> list[int]:
    return sorted({int(row) for row in pack.row})


def _text(number: float) -> float | str:
    return number if math.isfinite(number) else repr(number)
