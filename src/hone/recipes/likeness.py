"""How alike two models are on probe rows, by their logits; what counts as the same model, and why.

Legend: P positions that are looked at, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from hone.errors import ModelError

POSITIONS: Final = 32
"""Positions of a row that are looked at, its last ones: a vocabulary of 150,000 would fill the memory with all."""

_ROUNDOFF: Final = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""Largest relative error of rounding a number once (IEEE 754; bfloat16 has 8 significant bits)."""
_SUMS_IN_ANOTHER_ORDER: Final = 1e-4
_SLACK: Final = 6.0


@dataclass(frozen=True)
class Likeness:
    """What two models say on the same rows. Differences are root mean squares over P x V logits, as a share of
    the spread of the first model's logits about their mean."""

    positions: int
    difference: float
    """Between the two models."""
    effect: float
    """What the adapter itself changes of its base."""
    same_choice: float
    """Share of positions at which both find the same token likeliest."""
    widest_tie: float
    """Where they do not: the first model's largest gap between its choice and the other's, as that share."""
    tolerance: float

    @property
    def is_drowned(self) -> bool:
        """Whether rounding changes as much as the adapter does."""
        return self.effect > 0 and self.difference > self.effect

    def sentence(self) -> str:
        """Such as `logits differ by 3.1e-04 of their spread (tolerance 1.2e-02; the adapter changes 2.1e-01)`."""
        return (
            f"logits differ by {self.difference:.1e} of their spread over {self.positions:,} positions (tolerance "
            f"{self.tolerance:.1e}; the adapter itself changes {self.effect:.1e}); the likeliest token is the same at "
            f"{self.same_choice:.1%}"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "positions": self.positions,
            "difference": self.difference,
            "adapter_effect": self.effect,
            "same_choice": self.same_choice,
            "widest_tie": self.widest_tie,
            "tolerance": self.tolerance,
        }

    def check(self, what: str) -> None:
        """Raise ModelError where the models part."""
        if not self.difference <= self.tolerance:  # not a number: they part as well
            raise ModelError(
                f"{what} is not the model that was trained: {self.sentence()}",
                remedy="nothing was written; keep the adapter beside its base, and please report this",
            )


def tolerance(weights: torch.dtype, held: torch.dtype, layers: int) -> float:
    """Most that the logits of a merged model may differ, as a share of their spread.

    Rounding a weight changes it by at most the unit roundoff u of its type. Errors of the layers are
    independent, so they add up as a random walk: u times the root of `layers` + 1. Models of four families with
    random weights came to 0.3 to 2.2 times that, and to 5 times where both models were computed in bfloat16
    too; 6 and 12 times are allowed. Sums in another order alone (float32) came to 2e-6; 1e-4 is allowed.
    """
    u = max(_ROUNDOFF[weights], _ROUNDOFF[held])
    slack = _SLACK if held == torch.float32 else 2 * _SLACK
    return max(_SUMS_IN_ANOTHER_ORDER, slack * u * math.sqrt(layers + 1))


@torch.inference_mode()
def logits_of(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """[P, V] float32: the logits at the last positions of each row."""
    found: list[Tensor] = []
    for ids in rows:
        said = model(input_ids=torch.tensor([list(ids)]), use_cache=False)
        found.append(said.logits[0, -POSITIONS:].float())
    return torch.cat(found)


def compare(before: Tensor, after: Tensor, base: Tensor, *, within: float) -> Likeness:
    """Logits [P, V] of the adapter on its base, of the merged model, and of the base alone."""
    width = min(before.shape[1], after.shape[1], base.shape[1])  # spare rows may come and go
    before, after, base = before[:, :width], after[:, :width], base[:, :width]
    spread = (before - before.mean(dim=-1, keepdim=True)).square().mean().sqrt().clamp(min=1e-30)

    def apart(other: Tensor) -> float:
        return float((other - before).square().mean().sqrt() / spread)

    ours, theirs = before.argmax(dim=-1), after.argmax(dim=-1)
    places = torch.arange(before.shape[0])
    gaps = (before[places, ours] - before[places, theirs]) / spread
    return Likeness(
        positions=before.shape[0],
        difference=apart(after),
        effect=apart(base),
        same_choice=float((ours == theirs).float().mean()),
        widest_tie=float(gaps.max()),
        tolerance=within,
    )
