"""RMSNorm with few passes over memory: the same numbers as a family's own, forward and backward in one function each.

A family's own module is replaced only where a trial on random numbers shows that it computes one of the forms
below; the weight stays the same parameter under the same name. Zhang and Sennrich (2019): y = w x / rms(x).

Legend: n positions, d features.
"""

from __future__ import annotations

import copy
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

_SPREAD: Final = 3.0  # of the numbers of the trial
_CLOSE: Final = 1e-6
_EQUAL_SHARE: Final = 0.97


class FusedRMSNorm(nn.Module):
    """`shift`: added to the weight (Gemma stores it less 1). `rounds_first`: the normalised input is rounded to its
    own type before it meets the weight (Llama), not after (Gemma, OLMo 2)."""

    def __init__(
        self, weight: nn.Parameter, eps: float, *, shift: float, rounds_first: bool
    ) -> None:
        super().__init__()
        self.weight = weight
        self.variance_epsilon = eps
        self.shift = shift
        self.rounds_first = rounds_first

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [..., d]; returns the same shape."""
        with torch.autocast(x.device.type, enabled=False):
            return cast(
                Tensor,
                _RMSNorm.apply(
                    x, self.weight, self.variance_epsilon, self.shift, self.rounds_first
                ),
            )


class _RMSNorm(torch.autograd.Function):
    """Saves x, w and 1 / rms(x); everything is computed in float32.

    Where it is compiled the result is a tensor of its own: torch 2.11 traces no gradient into one that was changed
    in place, and says nothing.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, eps: float, shift: float, rounds_first: bool
    ) -> Tensor:
        wide = x.float()
        norm = cast(Tensor, torch.linalg.vector_norm(wide, dim=-1, keepdim=True))
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # [..., 1]
        ctx.save_for_backward(x, weight, scale)
        ctx.shift = shift
        hat = wide * scale
        if rounds_first:
            hat = hat.to(x.dtype)
            in_place = hat.dtype == weight.dtype and not torch.compiler.is_compiling()
            return hat.mul_(weight) if in_place else weight * hat
        wide_weight = _shifted(weight, shift)
        hat = hat * wide_weight if torch.compiler.is_compiling() else hat.mul_(wide_weight)
        return hat.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        grad = grads[0].float()
        hat = x.float() * scale
        into_weight = None
        if ctx.needs_input_grad[1]:
            rows = (grad * hat).reshape(-1, x.shape[-1])
            into_weight = rows.sum(0).to(weight.dtype)
        into_x = None
        if ctx.needs_input_grad[0]:
            weighted = grad * _shifted(weight, ctx.shift)
            dots = cast(Tensor, torch.linalg.vecdot(weighted, hat))
            share = dots.unsqueeze(-1).div_(-x.shape[-1])
            into_x = weighted.addcmul_(hat, share).mul_(scale).to(x.dtype)
        return into_x, into_weight, None, None, None


def _shifted(weight: Tensor, shift: float) -> Tensor:
    return weight.float() + shift if shift else weight.float()


def fuse_norms(model: nn.Module) -> int:
    """Replace every RMSNorm of `model` that computes one of the known forms; returns how many."""
    forms: dict[type[nn.Module], tuple[float, bool] | None] = {}
    found = 0
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if not _is_plain(module):
                continue
            if type(module) not in forms:
                forms[type(module)] = _form(module)
            form = forms[type(module)]
            if form is not None:
                setattr(parent, name, _fused(module, *form))
                found += 1
    return found


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is an RMSNorm by its name, with one weight per feature and nothing else."""
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    return (
        type(module).__name__.endswith("RMSNorm")
        and weight is not None
        and weight.dim() == 1
        and weight.dtype in (torch.float32, torch.bfloat16)
        and len(list(module.parameters())) == 1
        and isinstance(_eps(module), float)
    )


def _eps(module: nn.Module) -> float:
    return cast(float, getattr(module, "variance_epsilon", getattr(module, "eps", None)))


def _fused(module: nn.Module, shift: float, rounds_first: bool) -> FusedRMSNorm:
    weight = cast("nn.Parameter", module.weight)
    made = FusedRMSNorm(weight, _eps(module), shift=shift, rounds_first=rounds_first)
    return made.train(module.training)


@torch.no_grad()
def _form(module: nn.Module) -> tuple[float, bool] | None:
    """The form that a family's own module computes, tried on a copy of it with other weights."""
    trial = copy.deepcopy(module)
    weight = cast("nn.Parameter", trial.weight)
    draw = torch.Generator().manual_seed(0)
    weight.copy_(torch.randn(weight.shape, generator=draw) * 0.5 + 0.7)
    tries = [
        (torch.randn((5, weight.shape[0]), generator=draw) * _SPREAD).to(dtype)
        for dtype in (weight.dtype, torch.float32, torch.bfloat16)
    ]
    for shift in (0.0, 1.0):
        for rounds_first in (True, False):
            ours = _fused(trial, shift, rounds_first)
            if all(_same(ours(x), trial(x)) for x in tries):
                return shift, rounds_first
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal to float32 rounding; in bfloat16 the same numbers, but for a few on the border of two."""
    if a.dtype != b.dtype:
        return False
    if b.dtype == torch.bfloat16:
        return float((a == b).float().mean()) > _EQUAL_SHARE
    return bool(((a - b).abs() <= _CLOSE * float(b.abs().max())).all())
