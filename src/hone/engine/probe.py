"""The probe: two short rows shared and alone, on the real weights, before anything depends on it.

What the rules of `hone.models.facts` do not know is found here: a family whose attention, positions or
head do not keep to the Pack's rule gives another loss or another gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hone.engine.loss import PackLoss
from hone.pack import Pack

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
    trunk = np.arange(11, dtype=np.int64) * 7919 % vocab
    tails = [np.arange(1, 7) * 104729 % vocab, np.arange(1, 10) * 1299709 % vocab]
    pack = _shared_pack(trunk, [t.astype(np.int64) for t in tails])
    model = loss.model
    training = model.training
    model.eval()
    try:
        model.set_attn_implementation(attention)
        shared, shared_grad = _with_gradient(loss, loss(pack, 1.0))
        model.set_attn_implementation(alone)
        with torch.autocast(
            loss.head.device.type, loss.autocast, enabled=loss.autocast is not None
        ):
            apart_loss = sum(
                (_alone(model, np.concatenate([trunk, t.astype(np.int64)])) for t in tails),
                torch.zeros((), device=loss.head.device),
            )
        apart, apart_grad = _with_gradient(loss, apart_loss)
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
        model.zero_grad(set_to_none=True)
    scale = max(1e-30, float(apart_grad.norm()))
    return Probed(
        loss_error=abs(shared - apart) / max(1.0, abs(apart)),
        gradient_error=float((shared_grad - apart_grad).norm()) / scale,
        tolerance=_TOLERANCE[dtype],
    )


def _shared_pack(trunk: np.ndarray, tails: list[np.ndarray]) -> Pack:
    """Two rows that part after `trunk`; every token behind it is a target, and the branches' first too."""
    start = trunk.shape[0]
    first, second = tails
    ids = np.concatenate([trunk, first[:-1], second[:-1]])
    middle = start + first.shape[0] - 1
    total = ids.shape[0]
    until = np.full(total, total, dtype=np.int64)
    until[start:middle] = middle
    depth = np.concatenate(
        [
            np.arange(start),
            start + np.arange(first.shape[0] - 1),
            start + np.arange(second.shape[0] - 1),
        ]
    )
    places = [
        np.concatenate([[start - 1], np.arange(start, middle)]),
        np.concatenate([[start - 1], np.arange(middle, total)]),
    ]
    predict, source = np.unique(np.concatenate(places), return_inverse=True)
    target = np.concatenate(tails)
    return Pack(
        input_ids=ids.astype(np.int64),
        position_ids=depth.astype(np.int64),
        visible_until=until,
        predict=predict.astype(np.int64),
        source=source.astype(np.int64),
        target=target.astype(np.int64),
        weight=np.ones(target.shape[0], dtype=np.float32),
        row=np.repeat(np.arange(2, dtype=np.int32), [t.shape[0] for t in tails]),
    )


def _alone(model: PreTrainedModel, row: np.ndarray) -> Tensor:
    """Sum of the losses of the row's tail, through the model's own forward."""
    ids = torch.from_numpy(row).to(model.device).unsqueeze(0)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    start = 11
    return torch.nn.functional.cross_entropy(
        logits[start - 1 : -1].float(), ids[0, start:], reduction="sum"
    )


def _with_gradient(loss: PackLoss, value: Tensor) -> tuple[float, Tensor]:
    loss.model.zero_grad(set_to_none=True)
    value.backward()
    parts = [p.grad.float().flatten() for p in loss.model.parameters() if p.grad is not None]
    return float(value.detach()), torch.cat([part.clone() for part in parts])
