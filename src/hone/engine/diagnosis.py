"""Which rows of a step gave a loss that is not a number. It knows no file and changes no weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hone.engine.ahead import Source
from hone.engine.module import LossModule
from hone.pack import Step


@dataclass(frozen=True)
class NotFinite:
    """What is known of a step whose loss or gradient is not a number.

    `suspects` are the rows whose loss is not a number when they run alone; where there is none, the
    trouble is in the gradients.
    """

    step: int  # counted from 1
    grad_norm: float
    packs: tuple[tuple[float, int, tuple[str, ...]], ...]  # loss, tokens, rows
    rows: dict[str, float]  # mean loss of each row alone

    @property
    def suspects(self) -> tuple[str, ...]:
        """Rows that fail alone."""
        return tuple(name for name, loss in self.rows.items() if not math.isfinite(loss))

    def as_json(self) -> dict[str, object]:
        """For the dump; numbers that are none are written as text, since JSON has no NaN."""
        return {
            "step": self.step,
            "grad_norm": _text(self.grad_norm),
            "packs": [
                {"loss": _text(loss), "tokens": tokens, "rows": list(rows)}
                for loss, tokens, rows in self.packs
            ],
            "rows": [{"row": name, "loss": _text(loss)} for name, loss in self.rows.items()],
            "suspects": list(self.suspects),
        }


def report_not_finite(
    module: LossModule, source: Source, step: Step, *, losses: Sequence[float], norm: float
) -> NotFinite:
    """Run each row of a failed step on its own, without gradients, and put together what is known."""
    packs = tuple(
        (loss, pack.num_tokens, tuple(step.row_names[row] for row in sorted({*map(int, pack.row)})))
        for loss, pack in zip(losses, step.packs, strict=True)
    )
    rows = _losses_alone(module, source, step)
    return NotFinite(step=step.index + 1, grad_norm=norm, packs=packs, rows=rows)


def _losses_alone(module: LossModule, source: Source, step: Step) -> dict[str, float]:
    """Mean loss of each row, its Examples standing alone, with the step's own noise."""
    sums = dict.fromkeys(step.row_names, 0.0)
    weights = dict.fromkeys(step.row_names, 0.0)
    with torch.no_grad():
        for pack in source.step(step.index, 1).packs:
            rows = {step.row_names[int(row)] for row in pack.row}
            loss = float(module(pack, 1.0))
            for name in rows:
                sums[name] += loss
                weights[name] += float(pack.weight.sum())
    return {name: sums[name] / weights[name] if weights[name] else 0.0 for name in sums}


def _text(number: float) -> float | str:
    return number if math.isfinite(number) else repr(number)
