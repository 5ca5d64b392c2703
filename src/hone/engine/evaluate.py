"""The loss over held-out rows. It knows no rows, only the steps that hold them, and changes no weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from hone.engine.parts import Part, RowLosses, parts_of
from hone.engine.ranks import Ranks
from hone.engine.stop import ShouldStop, agreed
from hone.pack import Pack, Step


class HeldOut(Source, Protocol):
    """A source whose first `steps_per_epoch` steps hold each held-out row once."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass."""
        ...


class Passes(Protocol):
    """How ranks run the Packs of a step forward; each `hone.engine.strategy.Strategy` does."""

    @property
    def ranks(self) -> Ranks:
        """As `Strategy.ranks`."""
        ...

    @property
    def redoes(self) -> bool:
        """As `Strategy.redoes`."""
        ...

    def passes(self, hands: Sequence[Sequence[Pack]]) -> Sequence[Pack]:
        """As `Strategy.passes`."""
        ...

    def forward(self, pack: Pack, scale: float) -> Tensor:
        """As `Strategy.forward`."""
        ...


class Alone:
    """One process, and a module in which nothing needs to train."""

    redoes = True

    def __init__(self, module: LossModule) -> None:
        self._module = module
        self.ranks = Ranks()

    def passes(self, hands: Sequence[Sequence[Pack]]) -> Sequence[Pack]:
        """All of them."""
        return hands[0]

    def forward(self, pack: Pack, scale: float) -> Tensor:
        """As the module gives it."""
        return self._module(pack, scale)


@dataclass(frozen=True)
class Evaluation:
    """`loss` = sum(weight x nll) / sum(weight) over all held-out rows.

    The plain negative log-likelihood whatever is trained on: no smoothing, no z-loss, no weight by
    probability, no noise. So runs with other objectives stay comparable.
    """

    loss: float
    rows: int
    trained_tokens: int
    sources: dict[str, Part] = field(default_factory=dict[str, Part])
    """The part of each source, where there are several."""
    rows_of_steps: tuple[RowLosses, ...] = ()
    """The loss of each row, step by step, where that was asked for."""


def evaluate(
    module: LossModule,
    held_out: HeldOut,
    strategy: Passes,
    *,
    speeds: Speeds,
    micro_batch_tokens: int,
    lower: Callable[[HeldOut, Step, int], int],
    should_stop: ShouldStop,
    by_row: bool = False,
) -> Evaluation | None:
    """The held-out loss with noise off; None where a stop was asked for on the way.

    Each rank takes its share of the Packs. Where memory runs out, `lower(held_out, step, budget)` gives a
    smaller budget, or raises. With `by_row` the loss of each row is told as well.
    """
    ranks = strategy.ranks
    terms: list[Tensor] = []
    row_terms: list[Tensor] = []
    counts: list[int] = []  # of row terms, by step
    steps: list[Step] = []
    weight, rows, trained = 0.0, 0, 0
    budget = micro_batch_tokens
    module.train(False)
    try:
        for index in range(held_out.steps_per_epoch):
            while True:
                step = held_out.step(index, budget)
                packs = strategy.passes(deal(step.packs, ranks.world, speeds))
                found = _terms(module, strategy, packs, f"evaluation, step {index + 1}")
                fits = found is not None
                # Who cannot redo it must not ask the others: they wait inside a pass.
                if (fits or strategy.redoes) and not ranks.any(not fits):
                    break
                free_caches()
                budget = lower(held_out, step, budget)
            assert found is not None
            terms += found.terms
            if step.sources or by_row:
                row_terms += found.rows
                counts.append(sum(rows.numel() for rows in found.rows))
                steps.append(step)
            weight += step.weight
            rows += len(step.row_names)
            trained += step.trained_tokens
            if agreed(should_stop(), ranks) is not None:
                return None
    finally:
        module.train(True)
    if weight <= 0:
        raise ValueError("the held-out rows predict nothing")
    numbers = read_numbers([*terms, *row_terms])
    loss = math.fsum(ranks.each(math.fsum(numbers[: len(terms)]))[0]) / weight
    of_steps = _row_losses(steps, counts, numbers[len(terms) :], strategy, speeds)
    return Evaluation(
        loss=loss,
        rows=rows,
        trained_tokens=trained,
        sources=parts_of(of_steps),
        rows_of_steps=tuple(of_steps) if by_row else (),
    )


@dataclass
class _Found:
    """Of each Pack of a step: the sum of weight x nll, and, where it is told, that of each row."""

    terms: list[Tensor]
    rows: list[Tensor]


def _terms(module: LossModule, strategy: Passes, packs: Sequence[Pack], what: str) -> _Found | None:
    """None where memory ran out."""
    found = _Found([], [])
    try:
        with torch.no_grad():
            for pack in packs:
                strategy.ranks.pack(what)
                found.terms.append(strategy.forward(pack, 1.0).detach())
                if module.row_terms is not None:
                    found.rows.append(module.row_terms)
            return found
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def _row_losses(
    steps: Sequence[Step],
    counts: Sequence[int],
    numbers: Sequence[float],
    strategy: Passes,
    speeds: Speeds,
) -> list[RowLosses]:
    """The loss of each row in steps, so many of whose row terms this rank has read one after the other."""
    if not steps:
        return []
    mine: list[list[float]] = []
    for count in counts:
        mine.append(list(numbers[:count]))
        numbers = numbers[count:]
    rows: list[RowLosses] = []
    for step, *told in zip(steps, *strategy.ranks.gather(mine), strict=True):
        of_step = RowLosses.of_hands(step, deal(step.packs, strategy.ranks.world, speeds), told)
        if of_step is not None:
            rows.append(of_step)
    return rows
