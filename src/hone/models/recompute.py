"""Which layers give up their activations in the forward pass and compute them again in the backward pass.

The first layers are taken: when their turn comes, the others' activations are gone. It knows no memory and no Packs.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch.utils.checkpoint
from torch import nn
from transformers import PreTrainedModel

from hone.models.layers import decoder_layers

_CHECKPOINT = partial(cast(Any, torch.utils.checkpoint).checkpoint, use_reentrant=False)


def can_recompute(model: PreTrainedModel) -> bool:
    """Whether the family's layers can be computed again one by one."""
    return bool(model.supports_gradient_checkpointing and decoder_layers(model))


def recompute(model: PreTrainedModel, count: int) -> int:
    """Compute `count` layers again (0: none), the others once; returns how many it came to.

    Raises ValueError for a family whose layers cannot be told apart.
    """
    layers = decoder_layers(model)
    if count and not can_recompute(model):
        raise ValueError(f"{type(model).__name__} has no layers that can be computed again")
    for index, layer in enumerate(layers):
        _mark(layer, index < count)
    return min(count, len(layers))


def recomputed(model: PreTrainedModel) -> int:
    """How many layers are computed again."""
    return sum(
        bool(getattr(layer, "gradient_checkpointing", False)) for layer in decoder_layers(model)
    )


def _mark(layer: nn.Module, again: bool) -> None:
    """As transformers' own switch does it, layer by layer."""
    named = cast(Any, layer)
    named.gradient_checkpointing = again
    if again:
        named._gradient_checkpointing_func = _CHECKPOINT
