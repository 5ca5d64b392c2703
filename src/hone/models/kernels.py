"""Fused kernels of liger-kernel in place of a family's own norms and gated activations, on a GPU.

A module is replaced only where it is known to compute the kernel's formula: norms by the form that `fused_norm`
found, feed-forward blocks by a trial on random numbers. Weights stay the same parameters under the same names.

Two more of its kernels are not used. Its fused head reads the device twice a call, where a step must not wait, and
weighs tokens only by computing their logits again (0.8.5); `hone.engine.loss` does neither. Its rotary embedding has
no place to stand: families call theirs by the name of a function in their own file, and nothing is patched.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hone.models.fused_norm import FusedRMSNorm

KERNELS = ("rms_norm", "activation")

Replaced = list[tuple[nn.Module, str, nn.Module]]
"""What was put aside: the parent, the name, and the module that was there."""


def why_not(device: torch.device) -> str | None:
    """Why these kernels cannot run here, or None."""
    if device.type != "cuda":
        return "they need a GPU"
    for package in ("liger_kernel", "triton"):
        if importlib.util.find_spec(package) is None:
            return f"{package.replace('_', '-')} is not installed: pip install 'hone[gpu]'"
    return None


def put_kernels(model: nn.Module, names: Sequence[str]) -> Replaced:
    """Put the named kernels where they fit; `take_back` undoes it. What they replaced is returned."""
    replaced: Replaced = []
    known: dict[type[nn.Module], Activation | None] = {}
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            made: nn.Module | None = None
            if "rms_norm" in names and isinstance(module, FusedRMSNorm):
                made = KernelNorm(module)
            elif "activation" in names and _is_gated(module):
                kind = type(module)
                if kind not in known:
                    known[kind] = find_activation(module)
                found = known[kind]
                made = None if found is None else KernelGate(module, found)
            if made is not None:
                setattr(parent, name, made.train(module.training))
                replaced.append((parent, name, module))
    return replaced


def take_back(replaced: Replaced) -> None:
    """Put the modules back that `put_kernels` replaced."""
    for parent, name, module in reversed(replaced):
        setattr(parent, name, module)


class KernelNorm(nn.Module):
    """The same norm as a `FusedRMSNorm`, by liger's kernel."""

    def __init__(self, norm: FusedRMSNorm) -> None:
        super().__init__()
        self.weight = norm.weight
        self.variance_epsilon = norm.variance_epsilon
        self.shift = norm.shift
        self.rounds_first = norm.rounds_first

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [..., d]; returns the same shape and type."""
        casting = "llama" if self.rounds_first else "gemma"
        in_place = False  # the gradient that comes in may be used elsewhere too
        with torch.autocast(x.device.type, enabled=False):
            norm = _kernel("rms_norm", "LigerRMSNormFunction")
            return norm(x, self.weight, self.variance_epsilon, self.shift, casting, in_place)


Activation = str
_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


class KernelGate(nn.Module):
    """`down(act(gate(x)) * up(x))` with activation and product in one kernel, which keeps only its two inputs."""

    def __init__(self, block: nn.Module, activation: Activation) -> None:
        super().__init__()
        parts = dict(block.named_children())
        self.gate_proj = parts["gate_proj"]
        self.up_proj = parts["up_proj"]
        self.down_proj = parts["down_proj"]
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [..., E]; returns the same shape."""
        return self.down_proj(self._product(self.gate_proj(x), self.up_proj(x)))

    def _product(self, gate: Tensor, up: Tensor) -> Tensor:
        if self.activation == "silu":
            return _kernel("swiglu", "LigerSiLUMulFunction")(gate, up)
        return _kernel("geglu", "LigerGELUMulFunction")(gate, up)


@lru_cache(maxsize=8)
def _kernel(file: str, name: str) -> Callable[..., Tensor]:
    """One of liger's autograd functions, imported when it is first called: it needs a GPU's driver."""
    module = importlib.import_module(f"liger_kernel.ops.{file}")
    return cast("Callable[..., Tensor]", getattr(module, name).apply)


def _is_gated(module: nn.Module) -> bool:
    return {"gate_proj", "up_proj", "down_proj"} <= dict(module.named_children()).keys()


@torch.no_grad()
def find_activation(block: nn.Module) -> Activation | None:
    """Which activation a feed-forward block computes, where it is `down(act(gate(x)) * up(x))` and nothing else."""
    parts = dict(block.named_children())
    if parts.keys() - {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return None
    first = next(block.parameters())
    width = cast(Any, parts["gate_proj"]).in_features
    draw = torch.Generator().manual_seed(0)
    x = torch.randn((1, 3, width), generator=draw).to(device=first.device, dtype=first.dtype)
    want = cast(Tensor, block(x))
    gate, up = parts["gate_proj"](x), parts["up_proj"](x)
    for name, act in _ACTIVATIONS.items():
        got = cast(Tensor, parts["down_proj"](act(gate) * up))
        if torch.allclose(
            got.float(), want.float(), rtol=1e-2, atol=1e-3 * float(want.abs().max())
        ):
            return name
    return None
