"""LoftQ (Li et al., 2023): adapters that begin with what rounding took from a quantised base.

One round, over the very numbers that the base holds: W is near Q + s B A at the start, with B A the best of rank r by
singular values. More rounds would change Q, and then the saved adapter would fit no base that others can load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from hone.models.parts import modules
from hone.models.quantization import is_quantized


@torch.no_grad()
def make_good(model: nn.Module, weights: Mapping[str, Tensor], adapter: str) -> int:
    """Set A and B of each adapter beside a quantised layer; returns how many.

    `weights` are the layers' weights [outputs, inputs] before rounding, by whole name.
    """
    found = 0
    for name, layer in modules(model):
        if not isinstance(layer, LoraLayer) or adapter not in layer.lora_A:
            continue
        base = layer.base_layer
        if not is_quantized(base):
            continue
        lost = weights[name].float() - cast(Any, base).dense_weight(torch.float32)
        parts = cast("tuple[Tensor, Tensor, Tensor]", torch.linalg.svd(lost, full_matrices=False))
        left, values, right = parts  # [o, k], [k], [k, i]
        rank = cast("dict[str, int]", layer.r)[adapter]
        scale = cast("dict[str, float]", layer.scaling)[adapter]
        roots = (values[:rank] / scale).sqrt()
        down = cast(Tensor, cast(Any, layer.lora_A[adapter]).weight)
        up = cast(Tensor, cast(Any, layer.lora_B[adapter]).weight)
        down.zero_()
        up.zero_()
        down[: len(roots)] = roots.unsqueeze(1) * right[:rank]
        up[:, : len(roots)] = left[:, :rank] * roots
        found += 1
    return found


def linear_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model's linear layers as [outputs, inputs], by whole name."""
    return {
        name: module.weight.T if type(module).__name__ == "Conv1D" else module.weight
        for name, module in cast("list[tuple[str, Any]]", modules(model))
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }
