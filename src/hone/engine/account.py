"""What is told of a step beside its loss: whose loss it was, how well the machine was used, whether the loss jumped.

It knows numbers that were read, no tensors and no model.
"""

from __future__ import annotations

from typing import Final

from hone.engine.flops import Gauge
from hone.engine.parts import RowLosses, parts_of
from hone.engine.spike import SpikeWatch
from hone.pack import Step
from hone.runs.events import Say

_NAMED_ROWS: Final = 5


class StepAccount:
    """Of one step after the other. `rows` is None where the module does not tell the losses of rows."""

    def __init__(self, gauge: Gauge | None, say: Say) -> None:
        self._gauge = gauge
        self._say = say
        self._spikes = SpikeWatch()

    def fields(self, step: Step, rows: RowLosses | None, seconds: float) -> dict[str, object]:
        """What a `step` event holds of it: `sources` where there are several, `utilisation` where it is known."""
        told: dict[str, object] = {}
        if step.sources and rows is not None:
            told["sources"] = {name: part.to_json() for name, part in parts_of([rows]).items()}
        if self._gauge is not None:
            told["utilisation"] = self._gauge.utilisation(step.packs, seconds)
        return told

    def watch(self, step: Step, rows: RowLosses | None, loss: float) -> None:
        """Say it where the loss jumps, with the rows that have most of it."""
        usual = self._spikes.take(loss)
        if usual is None:
            return
        named = "are not known"
        if rows is not None:
            worst = rows.worst[:_NAMED_ROWS]
            named = ", ".join(f"{name} ({of_row:.2f})" for name, of_row in worst)
        self._say(
            "notice",
            code="loss-spike",
            message=f"step {step.index + 1}: the loss jumped from about {usual:.4g} to {loss:.4g}; "
            f"its rows with the highest losses: {named}",
        )
