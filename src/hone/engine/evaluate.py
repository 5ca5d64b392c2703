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
from hone.engine.memory import free_caches
from hone.engine.module import LossModule
from hone.engine.numbers import read_numbers
from hone.engine.parts import Part, RowLosses, parts_of
from hone.engine.stop import ShouldStop
from hone.pack import Step


class HeldOut(Source, Protocol):
    """A source whose first `steps_per_epoch` steps hold each held-out row once."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass."""
        ...


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


def evaluate(
    module: LossModule,
    held_out: HeldOut,
    *,
    micro_batch_tokens: int,
    lower: Callable[[HeldOut, Step, int], int],
    should_stop: ShouldStop,
) -> Evaluation | None:
    """The held-out loss with noise off; None where a stop was asked for on the way.

    Where memory runs out, `lower(held_out, step, budget)` gives a smaller budget, or raises.
    """
    terms: list[Tensor] = []
    row_terms: list[Tensor] = []
    steps: list[Step] = []
    weight, rows, trained = 0.0, 0, 0
    budget = micro_batch_tokens
    module.train(False)
    try:
        for index in range(held_out.steps_per_epoch):
            while True:
                step = held_out.step(index, budget)
                found = _terms(module, step)
                if found is not None:
                    break
                free_caches()
                budget = lower(held_out, step, budget)
            terms += found.terms
            if step.sources and found.rows:
                row_terms += found.rows
                steps.append(step)
            weight += step.weight
            rows += len(step.row_names)
            trained += step.trained_tokens
            if should_stop() is not None:
                return None
    finally:
        module.train(True)
    if weight <= 0:
        raise ValueError("the held-out rows predict nothing")
    numbers = read_numbers([*terms, *row_terms])
    loss = math.fsum(numbers[: len(terms)]) / weight
    sources = _parts(steps, numbers[len(terms) :])
    return Evaluation(loss=loss, rows=rows, trained_tokens=trained, sources=sources)


@dataclass
class _Found:
    """Of each Pack of a step: the sum of weight x nll, and, where it is told, that of each row."""

    terms: list[Tensor]
    rows: list[Tensor]


def _terms(module: LossModule, step: Step) -> _Found | None:
    """None where memory ran out."""
    found = _Found([], [])
    try:
        with torch.no_grad():
            for pack in step.packs:
                found.terms.append(module(pack, 1.0).detach())
                if module.row_terms is not None:
                    found.rows.append(module.row_terms)
            return found
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def _parts(steps: Sequence[Step], numbers: Sequence[float]) -> dict[str, Part]:
    """The part of each source in steps whose row terms were read one after the other."""
    rows: list[RowLosses] = []
    for step in steps:
        count = sum(pack.num_rows for pack in step.packs)
        rows.append(RowLosses.of(step, step.packs, numbers[:count]))
        numbers = numbers[count:]
    return parts_of(rows)
