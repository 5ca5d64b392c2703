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
_TAILS = (
    7,
    10,
)  # and that each row has of its own, and one more: what the last of them would predict
_GPU_TIMES = 24  # as long on a GPU, so that rows span several blocks of its attention kernels
_SAMPLED = 65536  # numbers of each parameter's gradient
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

    Of a model in which nothing is trained only the losses are compared. `attention` and `alone` are attention implementations: ours, and the family's own.
    """
    model = loss.model
    vocab, times = loss.head.vocab_size, _times(loss)
    trunk = [i * 7919 % vocab for i in range(_TRUNK * times)]
    first, second = (range(1, count * times) for count in _TAILS)
    tails = ([i * 104729 % vocab for i in first], [i * 1299709 % vocab for i in second])
    pack = _shared_pack(trunk, tails)
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
                (_alone(model, trunk, tail) for tail in tails),
                torch.zeros((), device=loss.head.device),
            )
        apart, apart_grad = _with_gradient(loss, apart_loss)
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
        loss.least_saved = least_saved
        model.zero_grad(set_to_none=True)
    return compare((shared, shared_grad), (apart, apart_grad), dtype=dtype)


Reading = tuple[float, Tensor]
"""A loss, and numbers taken from all over its gradient."""


def compare(got: Reading, want: Reading, *, dtype: torch.dtype) -> Probed:
    """How far one reading is from another, against what arithmetic in `dtype` leaves open."""
    norm = cast("Any", torch.linalg).vector_norm  # untyped in torch
    off = float(norm(got[1] - want[1]))
    return Probed(
        loss_error=abs(got[0] - want[0]) / max(1.0, abs(want[0])),
        gradient_error=off / max(1e-30, float(norm(want[1]))),
        tolerance=_TOLERANCE[dtype],
    )


def read_pack(loss: PackLoss, pack: Pack) -> Reading:
    """Loss and gradient of a Pack; the module is left without gradients."""
    reading = _with_gradient(loss, loss(pack, 1.0))
    loss.zero_grad(set_to_none=True)
    return reading


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


def _times(loss: PackLoss) -> int:
    """How many times the least length the probe's rows have; never more than the model's positions allow."""
    if loss.head.device.type != "cuda":
        return 1
    positions = getattr(loss.model.config.get_text_config(), "max_position_embeddings", None)
    return max(1, min(_GPU_TIMES, (positions or 512) // (_TRUNK + max(_TAILS))))


def _alone(model: PreTrainedModel, trunk: list[int], tail: list[int]) -> Tensor:
    """Sum of the losses of the row's tail, through the model's own forward."""
    ids = torch.tensor([trunk + tail], device=model.device)
    logits = cast(Tensor, model(input_ids=ids, use_cache=False).logits)[0]
    return torch.nn.functional.cross_entropy(
        logits[len(trunk) - 1 : -1].float(), ids[0, len(trunk) :], reduction="sum"
    )


def _with_gradient(loss: PackLoss, value: Tensor) -> Reading:
    if not value.requires_grad:
        return float(value), torch.zeros(1)
    loss.model.zero_grad(set_to_none=True)
    value.backward()
    parts = [_some_of(p) for p in loss.model.parameters() if p.requires_grad]
    return float(value.detach()), torch.cat(parts)


def _some_of(parameter: Tensor) -> Tensor:
    """Up to 65,536 numbers spread over a gradient: a large model's whole one would not fit beside it.

    A parameter that was not reached has a gradient of zero.
    """
    every = max(1, parameter.numel() // _SAMPLED) | 1  # odd, so that no column is left out for good
    wide = torch.promote_types(parameter.dtype, torch.float32)
    if parameter.grad is None:
        return torch.zeros(-(-parameter.numel() // every), dtype=wide, device=parameter.device)
    return parameter.grad.flatten()[::every].to(wide, copy=True)
