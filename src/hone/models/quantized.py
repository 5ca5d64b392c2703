"""Linear layers held in 4 or 8 bits: stored and restored by bitsandbytes, multiplied here.

bitsandbytes' own layers are exact in training only: at evaluation on a CPU the 4-bit one repacks its weights in
place, after which no gradient flows through it, and the 8-bit one rounds activations too, where neighbours in a Pack
and the last bits of a number decide what a token sees. These restore the weight, multiply, and forget it, in
training and out of it alike. What PEFT and transformers ask of the layers they inherit.

Legend: n positions, i inputs, o outputs.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import modules as bnb
from torch import Tensor, nn

if TYPE_CHECKING:
    from hone.config.sections import QuantizationSection


class Linear4bit(bnb.Linear4bit):
    """y = x W^T + b with W in blocks of 64 four-bit numbers, each block with a scale (Dettmers et al., 2023)."""

    def dense_weight(self, dtype: torch.dtype) -> Tensor:
        """The weight [o, i] that the stored numbers stand for."""
        # The weight's own, or the layer's where a rank gathered the weight out of slices.
        own = getattr(self.weight, "quant_state", None)
        state = copy.copy(cast(Any, self).quant_state if own is None else own)
        state.dtype = dtype
        return dequantize_4bit(self.weight.data, state)

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [..., i]; returns [..., o]."""
        return product(x, self)


class Linear8bit(bnb.Linear8bitLt):
    """y = x W^T + b with W in int8, each row with a scale (Dettmers et al., 2022, its weights only)."""

    def dense_weight(self, dtype: torch.dtype) -> Tensor:
        """The weight [o, i] that the stored numbers stand for."""
        weight: Any = self.weight
        own = cast("Tensor | None", getattr(weight, "SCB", None))
        scale = cast(Tensor, self.state.SCB if own is None else own)  # [o]
        return weight.data.to(dtype).mul_(scale.unsqueeze(1).mul(1.0 / 127.0))

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [..., i]; returns [..., o]."""
        return product(x, self)


QuantizedLinear = Linear4bit | Linear8bit


def product(x: Tensor, layer: QuantizedLinear) -> Tensor:
    """x W^T + b in the type of `x`, or in that of autocast where it is on."""
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    with torch.autocast(x.device.type, enabled=False):
        return cast(Tensor, _Product.apply(x.to(dtype), layer))


class _Product(torch.autograd.Function):
    """Keeps nothing for the backward pass, which restores the weight once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:  # type: ignore[override]
        ctx.layer = layer
        bias = cast("Tensor | None", layer.bias)
        return nn.functional.linear(
            x, layer.dense_weight(x.dtype), None if bias is None else bias.to(x.dtype)
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:  # type: ignore[override]
        if not ctx.needs_input_grad[0]:
            return None, None
        return grads[0] @ ctx.layer.dense_weight(grads[0].dtype), None


def settle(model: nn.Module) -> int:
    """Put the layers of this file in the place of bitsandbytes' own; returns how many."""
    found = 0
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module) in (bnb.Linear4bit, bnb.Linear8bitLt):
                setattr(parent, name, _settled(cast(nn.Linear, module)))
                found += 1
    return found


def _settled(old: nn.Linear) -> QuantizedLinear:
    """A layer of ours around the stored numbers of one of theirs."""
    with torch.device("meta"):
        shape = (old.in_features, old.out_features, _has_bias(old))
        if isinstance(old, bnb.Linear4bit):
            new: Any = Linear4bit(*shape)
        else:
            new = Linear8bit(*shape, has_fp16_weights=False)
    new.weight, new.bias = old.weight, old.bias
    if not isinstance(old, bnb.Linear4bit):
        new.state = old.state
    _keep_scales(new)
    return new.requires_grad_(False).train(old.training)


def quantize(layer: nn.Linear, section: QuantizationSection) -> QuantizedLinear:
    """`layer` with its weight rounded as `section` says; the same numbers as where transformers loads them."""
    weight = layer.weight.detach()
    with torch.device("meta"):
        shape = (layer.in_features, layer.out_features, _has_bias(layer))
        new: Any = (
            Linear4bit(*shape) if section.bits == 4 else Linear8bit(*shape, has_fp16_weights=False)
        )
    if section.bits == 4:
        stored = cast(Any, bnb.Params4bit)(
            weight,
            requires_grad=False,
            quant_type=section.quant_type,
            compress_statistics=section.double_quant,
        )
    else:
        stored = cast(Any, bnb.Int8Params)(weight, requires_grad=False, has_fp16_weights=False)
    new.weight = stored.to(weight.device)
    new.bias = layer.bias
    _keep_scales(new)
    return new.requires_grad_(False).train(layer.training)


def _keep_scales(layer: Any) -> None:
    """Let the layer hold what its weight's numbers are scaled by: where ranks hold slices of the weight, only numbers are cut."""
    if hasattr(layer.weight, "quant_state"):
        layer.quant_state = layer.weight.quant_state
    elif layer.weight.SCB is not None:
        layer.state.SCB = layer.weight.SCB


def _has_bias(layer: nn.Linear) -> bool:
    return cast("nn.Parameter | None", layer.bias) is not None
