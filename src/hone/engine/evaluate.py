"""The loss over held-out rows. It knows no rows, only the steps that hold them, and changes no weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hone.engine.ahead import Source
from hone.engine.budget import is_out_of_memory
from hone.engine.cost import Speeds
from hone.engine.deal import deal
from hone.engine.memory import free_caches
from hone.engine.module import LossModule
from hone.engine.numbers import read_numbers
from hone.engine.stop import ShouldStop, agreed
from hone.engine.strategy import Strategy
from hone.pack import Pack, Step


class HeldOut(Source, Protocol):
    """A source whose first `steps_per_epoch` steps hold each held-out row once."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """`loss` = sum(weight x nll) / sum(weight) over all held-out rows."""

    loss: float
    rows: int
    trained_tokens: int


def evaluate(
    module: LossModule,
    held_out: HeldOut,
    strategy: Strategy,
    *,
    speeds: Speeds,
    micro_batch_tokens: int,
    lower: Callable[[HeldOut, Step, int], int],
    should_stop: ShouldStop,
) -> Evaluation | None:
    """The held-out loss with noise off; None where a stop was asked for on the way.

    Each rank takes its share of the Packs. Where memory runs out, `lower(held_out, step, budget)` gives a
    smaller budget, or raises.
    """
    ranks = strategy.ranks
    terms: list[Tensor] = []
    weight, rows, trained = 0.0, 0, 0
    budget = micro_batch_tokens
    module.train(False)
    try:
        for index in range(held_out.steps_per_epoch):
            while True:
                step = held_out.step(index, budget)
                packs = strategy.passes(deal(step.packs, ranks.world, speeds))
                found = _terms(strategy, packs, f"evaluation, step {index + 1}")
                fits = found is not None
                # Who cannot redo it must not ask the others: they wait inside a pass.
                if (fits or strategy.redoes) and not ranks.any(not fits):
                    break
                free_caches()
                budget = lower(held_out, step, budget)
            terms += found or []
            weight += step.weight
            rows += len(step.row_names)
            trained += step.trained_tokens
            if agreed(should_stop(), ranks) is not None:
                return None
    finally:
        module.train(True)
    if weight <= 0:
        raise ValueError("the held-out rows predict nothing")
    loss = math.fsum(ranks.each(math.fsum(read_numbers(terms)))[0]) / weight
    return Evaluation(loss=loss, rows=rows, trained_tokens=trained)


def _terms(strategy: Strategy, packs: Sequence[Pack], what: str) -> list[Tensor] | None:
    """Each Pack's sum of weight x nll; None where memory ran out."""
    terms: list[Tensor] = []
    try:
        with torch.no_grad():
            for pack in packs:
                strategy.ranks.pack(what)
                terms.append(strategy.forward(pack, 1.0).detach())
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return terms
