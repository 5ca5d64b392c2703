"""How far a run has come: the numbers that a checkpoint holds beside the tensors. It knows no tensors."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Progress:
    """All counts are over the finished steps."""

    step: int = 0
    """Finished steps."""
    loss: float | None = None
    """Loss of the last finished step."""
    tokens: int = 0
    """Tokens of the rows as given."""
    trained_tokens: int = 0
    """Of these, how many were trained."""
    computed_tokens: int = 0
    """Tokens that the Packs held."""
    seconds: float = 0.0
    """Wall time spent in steps."""
    evaluated_step: int = 0
    """After how many steps the last evaluation was; 0: none yet."""
    best_step: int | None = None
    """After how many steps the best evaluation was."""
    best_loss: float | None = None
    """Its loss."""
    stale: int = 0
    """Evaluations since the best one."""

    def encode(self) -> bytes:
        """As JSON; every float comes back with the same bits."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Progress:
        """The inverse; ValueError for anything else."""
        parsed: object = json.loads(data)
        if not isinstance(parsed, dict):
            raise ValueError("progress is not an object")
        fields = cast("dict[str, Any]", parsed)
        if fields.keys() != {field.name for field in dataclasses.fields(cls)}:
            raise ValueError("progress has other fields than this version writes")
        return cls(**fields)

    def after_step(
        self, *, loss: float, tokens: int, trained_tokens: int, computed_tokens: int, seconds: float
    ) -> Progress:
        """One more finished step."""
        return dataclasses.replace(
            self,
            step=self.step + 1,
            loss=loss,
            tokens=self.tokens + tokens,
            trained_tokens=self.trained_tokens + trained_tokens,
            computed_tokens=self.computed_tokens + computed_tokens,
            seconds=self.seconds + seconds,
        )

    def after_empty_step(self) -> Progress:
        """One more step, in which nothing was trained."""
        return dataclasses.replace(self, step=self.step + 1)

    def after_evaluation(self, loss: float | None) -> Progress:
        """One more evaluation of the present weights; None is a loss that is not a number."""
        better = loss is not None and (self.best_loss is None or loss < self.best_loss)
        if better:
            return dataclasses.replace(
                self, evaluated_step=self.step, best_step=self.step, best_loss=loss, stale=0
            )
        return dataclasses.replace(self, evaluated_step=self.step, stale=self.stale + 1)
