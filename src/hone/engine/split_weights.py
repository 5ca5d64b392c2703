"""Float32 master weights in two halves: the bfloat16 that the model computes with, and the 16 bits that it lacks.

A weight takes 4 bytes instead of the 6 of a float32 master and its bfloat16 copy, no copy is made in a step, and the
update is AdamW on the float32 master, bit for bit. Gradients are summed in float32. It knows no steps.

The master's bits are those of the bfloat16, shifted by 16, plus the low half as a signed number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

LOW = "low"
_AT_A_TIME = 1 << 26  # numbers whose float32 exist at once in an update


def halves(wide: Tensor) -> tuple[Tensor, Tensor]:
    """bfloat16 and int16 of a float32 tensor: rounded to the nearest, and what that left."""
    bits = wide.contiguous().view(torch.int32)
    high = (bits + 0x8000) >> 16
    low = (bits - (high << 16)).to(torch.int16)
    return high.to(torch.int16).view(torch.bfloat16), low


def joined(high: Tensor, low: Tensor) -> Tensor:
    """The float32 tensor of its halves."""
    bits = (high.contiguous().view(torch.int16).to(torch.int32) << 16) + low.to(torch.int32)
    return bits.view(torch.float32)


def split_weights(parameters: Iterable[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """Halve every trained float32 matrix in place; the low half of each.

    Weights of one dimension stay whole: they are few, and norms are computed in float32 anyway. The
    parameter keeps its identity and gets a float32 gradient.
    """
    lows: dict[nn.Parameter, Tensor] = {}
    for parameter in parameters:
        if not parameter.requires_grad or parameter.ndim < 2 or parameter.dtype != torch.float32:
            continue
        high, low = halves(parameter.detach())
        parameter.data = high
        parameter.grad_dtype = torch.float32
        lows[parameter] = low
    return lows


class SplitAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019) over weights of which some are halved; state is allocated at once."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lows: Mapping[nn.Parameter, Tensor],
        *,
        betas: tuple[float, float],
    ) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "eps": 1e-8, "weight_decay": 0.0})
        for group in self.param_groups:
            for parameter in cast("list[nn.Parameter]", group["params"]):
                zeros = torch.zeros_like(parameter, dtype=torch.float32)
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": zeros,
                    "exp_avg_sq": zeros.clone(),
                }
                if parameter in lows:
                    self.state[parameter][LOW] = lows[parameter]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient. There is no closure to call again."""
        if closure is not None:
            raise ValueError("SplitAdamW takes no closure")
        for group in self.param_groups:
            whole: list[nn.Parameter] = []
            for parameter in cast("list[nn.Parameter]", group["params"]):
                if parameter.grad is None:
                    continue
                if LOW in self.state[parameter]:
                    self._move_halved(parameter, group)
                else:
                    whole.append(parameter)
            states = [self.state[p] for p in whole]
            grads = [cast(Tensor, p.grad) for p in whole]
            _adamw(list[Tensor](whole), grads, states, [s["step"] for s in states], group)

    def _move_halved(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        """The update piece by piece, each joined, moved and halved again."""
        state = cast("dict[str, Tensor]", self.state[parameter])
        step = state["step"]
        flat = {key: state[key].view(-1) for key in ("exp_avg", "exp_avg_sq", LOW)}
        weight, grad = parameter.data.view(-1), cast(Tensor, parameter.grad).view(-1)
        for low in range(0, weight.shape[0], _AT_A_TIME):
            piece = slice(low, low + _AT_A_TIME)
            wide = joined(weight[piece], flat[LOW][piece])
            moments = {key: flat[key][piece] for key in ("exp_avg", "exp_avg_sq")}
            _adamw([wide], [grad[piece]], [moments], [step.clone()], group)
            weight[piece], flat[LOW][piece] = halves(wide)
        step += 1


def _adamw(
    weights: list[Tensor],
    grads: list[Tensor],
    states: list[dict[str, Tensor]],
    steps: list[Tensor],
    group: Mapping[str, Any],
) -> None:
    if not weights:
        return
    adamw(
        weights,
        grads,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        steps,
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
