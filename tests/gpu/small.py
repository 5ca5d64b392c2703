"""Small models of every family as a GPU's kernels take them (heads of 16 at least), and steps of rows for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from hone.data.layout import branch, lay_out
from hone.engine.loss import PackLoss
from hone.engine.noise import PrefixDropout
from hone.models import gpu_attention
from hone.models.adapters import attach_lora, set_dropout
from hone.models.fused_norm import fuse_norms
from hone.pack import Pack, Step
from tests.tiny import FAMILIES, VOCAB, Row, rows_with_shared_beginnings

_OTHER_SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "n_embd": 64,
        "hidden_size": None,
        "n_positions": 1024,
        "max_position_embeddings": None,
    },
    "gemma2": {"head_dim": 16, "sliding_window": 90},
    "gemma3": {"head_dim": 16, "sliding_window": 90},
    "mistral": {"sliding_window": 90},
    "qwen2-window": {"sliding_window": 90},
    "gpt-oss": {"sliding_window": 90},
}


def model_of(
    family: str,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **more: Any,
) -> PreTrainedModel:
    """A family's model on the device; windows are shorter than the rows of `packs_of`."""
    sizes = {
        "hidden_size": 64,
        "max_position_embeddings": 1024,
        **_OTHER_SIZES.get(family, {}),
        **more,
    }
    return cast(PreTrainedModel, FAMILIES[family].make(dtype=dtype, seed=seed, **sizes).to(device))


def adapt(model: PreTrainedModel, *, dropout: float = 0.0) -> None:
    """Put adapters on all linear layers, with B away from its zero start."""
    section: Any = SimpleNamespace(
        r=8, alpha=16.0, dropout=dropout, target_modules="all-linear", layers=None, rslora=False,
        dora=False, init="default", pissa_niter=None, modules_to_save=[],
    )  # fmt: skip
    attach_lora(model, section, seed=0)
    set_dropout(model, PrefixDropout)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def loss_of(model: PreTrainedModel, *, autocast: torch.dtype | None = None) -> PackLoss:
    """The model with attention over Packs, as a run has it."""
    fuse_norms(model)
    model.set_attn_implementation(gpu_attention.NAME)
    return PackLoss(model, autocast=autocast)


def rows_of(seed: int, *, rows: int = 6, longest: int = 400) -> list[Row]:
    """Rows that begin alike and span several blocks of the attention kernels."""
    return rows_with_shared_beginnings(seed, rows=rows, longest=longest)


def packs_of(rows: list[Row], *, budget: int = 10**6, share: bool = True) -> tuple[Pack, ...]:
    """The rows as Packs."""
    made = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    return lay_out([b for b in made if b], budget=budget, share_prefixes=share, pack=True)


class Rows:
    """A source of steps for the loop: `batch` random rows each, the same ones for the same index."""

    steps_per_epoch = 4

    def __init__(self, *, batch: int = 5, longest: int = 300, share: bool = True) -> None:
        self.batch, self.longest, self.share = batch, longest, share

    def step(self, index: int, micro_batch_tokens: int) -> Step:
        """The step, in Packs of at most so many tokens."""
        rows = rows_of(100 + index % self.steps_per_epoch, rows=self.batch, longest=self.longest)
        packs = packs_of(rows, budget=micro_batch_tokens, share=self.share)
        return Step(
            index=index,
            packs=packs,
            row_names=tuple(f"rows.jsonl:{i + 1}" for i in range(self.batch)),
            tokens=sum(row.input_ids.shape[0] for row in rows),
            trained_tokens=sum(pack.target.shape[0] for pack in packs),
            weight=float(sum(np.sum(pack.weight, dtype=np.float64) for pack in packs)),
        )


def gradient_of(loss: PackLoss, packs: tuple[Pack, ...]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and float32 gradients of a step, weights summed to one."""
    mass = sum(float(pack.weight.sum()) for pack in packs)
    loss.zero_grad(set_to_none=True)
    total = 0.0
    for pack in packs:
        term = loss(pack, 1 / mass)
        term.backward()
        total += float(term.detach())
    return total, dict(_gradients(loss.model))


def _gradients(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [
        (name, (torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()).float())
        for name, p in model.named_parameters()
        if p.requires_grad
    ]


def apart(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of all gradients over the norm of all."""
    off = sum(float((got[key] - want[key]).double().square().sum()) for key in want)
    return (off / sum(float(grad.double().square().sum()) for grad in want.values())) ** 0.5


__all__ = [
    "VOCAB",
    "Rows",
    "adapt",
    "apart",
    "gradient_of",
    "loss_of",
    "model_of",
    "packs_of",
    "rows_of",
]
