"""DoRA (Liu et al., 2024) as matrix products: y = c (x W^T + s (x A^T) B^T) + b, with c = m / |W + s B A| by rows.

As the paper proposes, and PEFT does, the norm is a constant to the gradient. It is taken without W + s B A itself:
|W + s B A|^2 = |W|^2 + 2 s B . (W A^T) + s^2 B . (B A A^T), each dot by rows.

Legend: n positions, i inputs, o outputs, r rank.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def dora(
    x: Tensor,
    dense: Tensor,
    layer: Any,
    bias: Tensor | None,
    down: Tensor,
    up: Tensor,
    magnitude: Tensor,
    scale: float,
) -> Tensor:
    """`x` is [n, i], returns [n, o]. `dense` is W [o, i]; with `layer` it is not kept, and restored by it."""
    return cast(Tensor, _FusedDora.apply(x, dense, layer, bias, down, up, magnitude, scale))


def row_norms(dense: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """|W + s B A| by rows [o], in the type of the adapter's weights."""
    wide = down.dtype
    own = torch.linalg.vector_norm(dense, dim=1, dtype=wide).square()  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
    crossed = (dense @ down.to(dense.dtype).T).to(wide)  # [o, r]
    cross = (up * crossed).sum(dim=1)
    update = ((up @ (down @ down.T)) * up).sum(dim=1)
    total = cast(Tensor, own) + 2 * scale * cross + scale * scale * update
    return total.clamp_(min=0).sqrt_()


class _FusedDora(torch.autograd.Function):
    """Saves x, x A^T and what c multiplies."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,  # [n, i]
        dense: Tensor,  # [o, i]
        layer: Any,
        bias: Tensor | None,  # [o]
        down: Tensor,  # A [r, i]
        up: Tensor,  # B [o, r]
        magnitude: Tensor,  # m [o]
        scale: float,
    ) -> Tensor:
        norms = row_norms(dense, down, up, scale)  # [o]
        factor = magnitude / norms
        down_in, up_in = down.to(x.dtype), up.to(x.dtype)
        low = x @ down_in.T
        unscaled = (x @ dense.T).addmm_(low, up_in.T, alpha=scale)
        ctx.save_for_backward(
            x, None if layer is not None else dense, down_in, up_in, low, unscaled, factor, norms
        )
        ctx.layer = layer
        ctx.scale = scale
        ctx.wide = down.dtype
        y = unscaled * factor  # in the wider type: a magnitude moves by less than bfloat16 can tell
        if bias is not None:
            compiles = torch.compiler.is_compiling()  # as in hone.models.fused_norm
            y = y + bias if compiles else y.add_(bias)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, dense, down, up, low, unscaled, factor, norms = ctx.saved_tensors
        grad = grads[0]
        into_magnitude = (grad * unscaled).sum(dim=0, dtype=ctx.wide) / norms
        grad = (grad * factor).to(x.dtype)
        into_low = (grad @ up).mul_(ctx.scale)
        into_x = None
        if ctx.needs_input_grad[0]:
            weight = dense if dense is not None else ctx.layer.dense_weight(grad.dtype)
            into_x = (grad @ weight).addmm_(into_low, down)
        into_down = (into_low.T @ x).to(ctx.wide)
        into_up = (grad.T @ low).mul_(ctx.scale).to(ctx.wide)
        return into_x, None, None, None, into_down, into_up, into_magnitude, None
