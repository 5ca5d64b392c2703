"""The probe: two short rows shared and alone, on the real weights, before anything depends on it.

What the rules of `hone.models.facts` do not know is found here: a family whose attention, positions or
head do not keep to the Pack's rule gives another loss or another gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hone.engine.loss import PackLoss
from hone.pack import Pack

_TRUNK = 11  # tokens that both rows share
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9, torch.bfloat16: 6e-2, torch.float16: 2e-2}


@dataclass(frozen=True)
class Probed:
    """How far shared rows are from the same rows alone: relative errors of loss and gradient."""

    loss_error: float
    gradient_error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """False for NaN too."""
        return self.loss_error <= self.tolerance and self.gradient_error <= self.tolerance


def probe(loss: PackLoss, *, attention: str, alone: str, dtype: torch.dtype) -> Probed:
    """Compare `loss` on one shared Pack of two rows with the model's own logits, row by row.

    `attention` and `alone` are attention implementations: ours, and the family's own.
    """
    vocab = loss.head.vocab_size
    trunk = [i * 7919 % vocab for i in range(_TRUNK)]
    tails = ([i * 104729 % vocab for i in range(1, 7)], [i * 1299709 % vocab for i in range(1, 10)])
    pack = _shared_pack(trunk, tails)
    model = loss.model
    training, least_saved = model.training, loss.least_saved
    model.eval()
    loss.least_saved = 1  # so that what the last layer leaves out is tried on short rows too
    try:
        model.set_attn_implementation(attention)
        shared, shared_grad = _with_gradient(loss, loss(pack, 1.0))
        model.set_attn_implementation(alone)
        with torch.autocast(
            loss.head.device.type, loss.autocast, enabled=loss.autocast is not None
        ):
            apart_loss: Tensor = sum(
                (_alone(model, trunk + tail) for tail in tails),
                torch.zeros((), device=loss.head.device),
            )
        apart, apart_grad = _with_gradient(loss, apart_loss)
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
        loss.least_saved = least_saved
        model.zero_grad(set_to_none=True)
    norm = cast("Any", torch.linalg).vector_norm  # untyped in torch
    apart_norm, off = float(norm(apart_grad)), float(norm(shared_grad - apart_grad))
    return Probed(
        loss_error=abs(shared - apart) / max(1.0, abs(apart)),
        gradient_error=off / max(1e-30, apart_norm),
        tolerance=_TOLERANCE[dtype],
    )


def _shared_pack(trunk: list[int], tails: tuple[list[int], list[int]]) -> Pack:
    """Two rows that part after `trunk`; all that follows it is predicted, the parting itself twice."""
    first, second = tails
    start, middle = len(trunk), len(trunk) + len(first) - 1
    total = middle + len(second) - 1
    until = [total] * start + [middle] * (middle - start) + [total] * (total - middle)
    depth = [*range(middle), *range(start, start + len(second) - 1)]
    predict = list(range(start - 1, total))
    source = [*range(len(first)), 0, *range(len(first), len(predict))]
    return Pack(
        input_ids=np.array(trunk + first[:-1] + second[:-1], dtype=np.int64),
        position_ids=np.array(depth, dtype=np.int64),
        visible_until=np.array(until, dtype=np.int64),
        predict=np.array(predict, dtype=np.int64),
        source=np.array(source, dtype=np.int64),
        target=np.array(first + second, dtype=np.int64),
        weight=np.ones(len(source), dtype=np.float32),
        row=np.array([0] * len(first) + [1] * len(second), dtype=np.int32),
    )


def _alone(model: PreTrainedModel, row: list[int]) -> Tensor:
    """Sum of the losses of the row's tail, through the model's own forward."""
    ids = torch.tensor([row], device=model.device)
    logits = cast(Tensor, model(input_ids=ids, use_cache=False).logits)[0]
    return torch.nn.functional.cross_entropy(
        logits[_TRUNK - 1 : -1].float(), ids[0, _TRUNK:], reduction="sum"
    )


def _with_gradient(loss: PackLoss, value: Tensor) -> tuple[float, Tensor]:
    loss.model.zero_grad(set_to_none=True)
    value.backward()
    parts = [p.grad.float().flatten() for p in loss.model.parameters() if p.grad is not None]
    return float(value.detach()), torch.cat([part.clone() for part in parts])
