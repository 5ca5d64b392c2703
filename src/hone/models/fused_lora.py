"""A LoRA layer whose forward and backward are matrix products only: no scaled copies, no sums of outputs.

PEFT makes these instead of its own `Linear` (its hook for custom modules); weights, names and saved files
are PEFT's. Whatever is not the plain case, or DoRA (`hone.models.fused_dora`), goes the stock way: dropout in training,
several adapters, a bias beside B, a trained base weight, GPT-2's transposed layers. A quantised base (`hone.models.quantized`) is plain: its
weight is restored for the product, forward and backward, and not kept between.

Legend: n positions, i inputs, o outputs, r rank. y = x W^T + b + s (x A^T) B^T.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora import Linear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn

from hone.models.fused_dora import dora
from hone.models.quantization import is_quantized


class FusedLinear(Linear):
    """PEFT's LoRA layer over a linear layer, fused where one adapter is active and adds no noise."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`x` is [..., i]; returns [..., o]."""
        name = self._plain_adapter()
        if name is None or args or kwargs:
            return super().forward(x, *args, **kwargs)
        base = cast(nn.Linear, self.base_layer)
        bias = cast("nn.Parameter | None", base.bias)
        dtype = base.weight.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        elif is_quantized(base):
            dtype = x.dtype
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        layer = base if is_quantized(base) else None
        with torch.autocast(x.device.type, enabled=False):
            bias = None if bias is None else bias.to(dtype)
            weight = None if layer is not None else base.weight.to(dtype)
            down = cast(nn.Linear, self.lora_A[name]).weight
            up = cast(nn.Linear, self.lora_B[name]).weight
            scale = cast("dict[str, float]", self.scaling)[name]
            if name in self.lora_variant:
                magnitude = cast(Any, self.lora_magnitude_vector[name]).weight
                dense = _dense(weight, layer, dtype)
                out = dora(flat, dense, layer, bias, down, up, magnitude, scale)
            else:
                out = _apply(flat, weight, layer, bias, down, up, scale)
        return out.view(*x.shape[:-1], -1)

    def _plain_adapter(self) -> str | None:
        """The one active adapter, where its update is s B A x, or DoRA's, and nothing more."""
        active = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(active) != 1:
            return None
        name = active[0]
        if not isinstance(self.lora_variant.get(name), DoraLinearVariant | None):
            return None
        base = self.base_layer
        extra = cast("nn.Parameter | None", self.lora_B[name].bias)
        plain = (
            (type(base) is nn.Linear or is_quantized(base))
            and not any(parameter.requires_grad for parameter in base.parameters())
            and extra is None
            and (isinstance(self.lora_dropout[name], nn.Identity) or not self.training)
        )
        return name if plain else None


def _apply(*inputs: Tensor | nn.Module | float | None) -> Tensor:
    return cast(Tensor, _FusedLora.apply(*inputs))


class _FusedLora(torch.autograd.Function):
    """Saves x and x A^T; the scale rides on the products' `alpha`. `weight` or else `layer`, which restores it."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,  # [n, i]
        weight: Tensor | None,  # [o, i]
        layer: nn.Module | None,
        bias: Tensor | None,  # [o]
        down: Tensor,  # A [r, i]
        up: Tensor,  # B [o, r]
        scale: float,
    ) -> Tensor:
        down_in, up_in = down.to(x.dtype), up.to(x.dtype)
        dense = _dense(weight, layer, x.dtype)
        y = x @ dense.T if bias is None else torch.addmm(bias, x, dense.T)
        low = x @ down_in.T
        if torch.compiler.is_compiling():  # as in hone.models.fused_norm
            y = torch.addmm(y, low, up_in.T, alpha=scale)
        else:
            y.addmm_(low, up_in.T, alpha=scale)
        ctx.save_for_backward(x, weight, down_in, up_in, low)
        ctx.layer = layer
        ctx.scale = scale
        ctx.wide = down.dtype
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, down, up, low = ctx.saved_tensors
        grad = grads[0]
        into_low = grad @ up
        into_low.mul_(ctx.scale)
        into_x = None
        if ctx.needs_input_grad[0]:
            into_x = grad @ _dense(weight, ctx.layer, grad.dtype)
            into_x.addmm_(into_low, down)
        into_down = (into_low.T @ x).to(ctx.wide)
        into_up = (grad.T @ low).mul_(ctx.scale).to(ctx.wide)
        return into_x, None, None, None, into_down, into_up, None


def _dense(weight: Tensor | None, layer: nn.Module | None, dtype: torch.dtype) -> Tensor:
    return weight if weight is not None else cast(Any, layer).dense_weight(dtype)
