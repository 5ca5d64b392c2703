"""What moves the weights that train, and the clipping before it. It knows no steps and no schedule.

Whatever is chosen, its state is allocated at once: it cannot run out of memory in the first step, and a resume
fills it in place.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hone.engine.joined import Joined
from hone.engine.lion import Lion
from hone.engine.module import LossModule
from hone.engine.moments import (
    FROM_BITSANDBYTES,
    LEAST_PAGED,
    LEAST_QUANTIZED,
    OptimizerName,
    Place,
    is_paged,
    moment_bytes,
    moves_by_muon,
)
from hone.engine.plan import Plan
from hone.engine.split_weights import SplitAdamW
from hone.errors import EnvironmentFault

_EXACT = (torch.float32, torch.float64)
_FUSED_DEVICES = {"cpu", "cuda"}
_ADAPTER_B = ("lora_B", "lora_embedding_B")  # PEFT's names of the matrices that begin at zero

Groups = list[dict[str, Any]]


def trained_parameters(module: LossModule) -> dict[str, nn.Parameter]:
    """What trains, by name, each once. All in float32 (or float64): these are the master weights.

    In bf16 arithmetic the casts happen in the forward pass; an update of a bf16 weight would be lost
    where it is smaller than 1/256 of the weight.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("the module has no parameter that requires a gradient")
    lows = low_halves(module)
    for name, parameter in trained.items():
        if parameter.dtype not in _EXACT and parameter not in lows:
            raise ValueError(f"{name} trains in {parameter.dtype}; master weights are float32")
    return trained


def low_halves(module: LossModule) -> Mapping[nn.Parameter, Tensor]:
    """The low half of each weight that is held in two (`hone.engine.split_weights`)."""
    return cast("Mapping[nn.Parameter, Tensor]", getattr(module, "lows", {}))


def places_of(module: LossModule, trained: Mapping[str, nn.Parameter]) -> dict[str, Place]:
    """Where each trained weight stands. What is tied to the embedding counts as the embedding."""
    embeddings: set[int] = set()
    heads: set[int] = set()
    for part in cast(nn.Module, module).modules():
        if isinstance(part, nn.Embedding):
            embeddings |= {id(p) for p in part.parameters()}
        for ask, found in (("get_input_embeddings", embeddings), ("get_output_embeddings", heads)):
            answer = getattr(part, ask, None)  # a model of transformers knows its ends
            with contextlib.suppress(NotImplementedError):
                end = None if answer is None else answer()
                found |= {id(p) for p in end.parameters()} if isinstance(end, nn.Module) else set()
    return {
        name: "embedding" if id(p) in embeddings else "head" if id(p) in heads else "inside"
        for name, p in trained.items()
    }


def build_optimizer(
    trained: Mapping[str, nn.Parameter],
    *,
    weight_decay: float,
    betas: tuple[float, float],
    name: OptimizerName = "adamw",
    lora_plus_ratio: float = 1.0,
    places: Mapping[str, Place] | None = None,
    lows: Mapping[nn.Parameter, Tensor] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of that name over all of `trained`, its rate 0 until `set_learning_rate`.

    `places` is what `places_of` says (all inside, where it is not given); `lora_plus_ratio` is how many times
    the rate adapters' B matrices get (LoRA+, Hayou et al. 2024). Raises EnvironmentFault where it needs
    bitsandbytes and that is absent.
    """
    at = places or {}

    def groups(chosen: Mapping[str, nn.Parameter]) -> Groups:
        return _groups(chosen, weight_decay=weight_decay, lora_plus_ratio=lora_plus_ratio)

    if lows and name != "adamw":
        raise ValueError(f"weights in two halves are moved by adamw, not by {name}")
    if name == "adamw":
        halves = SplitAdamW(groups(trained), lows, betas=betas) if lows else None
        return halves or _adamw(groups(trained), betas)
    if name == "lion":
        return Lion(groups(trained), betas=betas)
    if name == "adafactor":
        return _adafactor(groups(trained))
    if name == "muon":
        inside = {n for n, p in trained.items() if moves_by_muon(p.shape, at.get(n, "inside"))}
        matrices, rest = _split(trained, inside)
        parts = [_muon(groups(matrices))] if matrices else []
        return _joined([*parts, *([_adamw(groups(rest), betas)] if rest else [])])
    embedding, rest = _split(trained, {n for n in trained if at.get(n) == "embedding"})
    return _joined(
        [
            _from_bitsandbytes(name, groups(some), betas, exact=exact)
            for some, exact in ((rest, False), (embedding, True))
            if some
        ]
    )


def plan_optimizer(
    plan: Plan,
    trained: Mapping[str, nn.Parameter],
    places: Mapping[str, Place],
    *,
    lows: Mapping[nn.Parameter, Tensor] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer that a plan asks for, its state allocated."""
    return build_optimizer(
        trained,
        weight_decay=plan.weight_decay,
        betas=plan.betas,
        name=plan.optimizer,
        lora_plus_ratio=plan.lora_plus_ratio,
        places=places,
        lows=lows,
    )


def _joined(parts: Sequence[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    return parts[0] if len(parts) == 1 else Joined(*parts)


def _split(
    trained: Mapping[str, nn.Parameter], chosen: set[str]
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    inside = {name: p for name, p in trained.items() if name in chosen}
    return inside, {name: p for name, p in trained.items() if name not in chosen}


def _groups(
    trained: Mapping[str, nn.Parameter], *, weight_decay: float, lora_plus_ratio: float
) -> Groups:
    """Parameter groups by weight decay and by rate; `rate_scale` is for `set_learning_rate`."""
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in trained.items():
        exempt = is_exempt(name, parameter)
        raised = lora_plus_ratio != 1.0 and any(part in _ADAPTER_B for part in name.split("."))
        group: dict[str, Any] = {
            "params": [],
            "weight_decay": 0.0 if exempt else weight_decay,
            "rate_scale": lora_plus_ratio if raised else 1.0,
        }
        groups.setdefault((exempt, raised), group)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def _adamw(groups: Groups, betas: tuple[float, float]) -> torch.optim.Optimizer:
    """AdamW with decoupled decay (Loshchilov and Hutter 2019).

    The fused kernel takes a quarter of the plain loop's CPU time: 76 against 303 ms at 58M parameters, 4.9
    against 17.9 ms at 2.75M in 336 adapter matrices (one thread, torch 2.13).
    """
    parameters = _parameters(groups)
    fused = {p.device.type for p in parameters} <= _FUSED_DEVICES
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=fused)
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros(
                (), dtype=torch.float32, device=parameter.device if fused else "cpu"
            ),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def _muon(groups: Groups) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024), Nesterov momentum 0.95, each update scaled by `0.2 * sqrt(max(rows, columns))`.

    So scaled it has the root mean square of AdamW's (Liu et al. 2025, Muon is Scalable for LLM Training), and
    takes AdamW's learning rate and weight decay.
    """
    optimizer = torch.optim.Muon(groups, lr=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for parameter in _parameters(groups):
        optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    return optimizer


def _adafactor(groups: Groups) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018) with absolute rates: `lr * g / sqrt(v)`, clipped to a root mean square of 1.

    That of transformers, since torch's multiplies each update by the weight's own size: a matrix that begins
    at zero, as an adapter's does, would hardly move.
    """
    from transformers.optimization import Adafactor

    optimizer = Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False)
    for parameter in _parameters(groups):
        shape = parameter.shape
        kept = (
            {"exp_avg_sq_row": shape[:-1], "exp_avg_sq_col": (*shape[:-2], shape[-1])}
            if len(shape) > 1
            else {"exp_avg_sq": shape}
        )
        optimizer.state[parameter] = {
            "step": 0,
            "RMS": parameter.new_zeros(()),
            **{key: parameter.new_zeros(size) for key, size in kept.items()},
        }
    return optimizer


def _from_bitsandbytes(
    name: OptimizerName, groups: Groups, betas: tuple[float, float], *, exact: bool = False
) -> torch.optim.Optimizer:
    """AdamW or Lion with moments quantised in blocks (Dettmers et al. 2022), paged, or both; `exact`: in float32."""
    try:
        import bitsandbytes
    except ImportError as fault:
        raise _absent(name, f"does not load ({fault})") from fault
    package = cast("Any", bitsandbytes).optim
    make = package.Lion if name.startswith("lion") else package.AdamW
    bits = 8 if name.endswith("_8bit") and not exact else 32
    optimizer = make(
        groups,
        lr=0.0,
        betas=betas,
        optim_bits=bits,
        is_paged=is_paged(name),
        min_8bit_size=LEAST_QUANTIZED,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Paged optimizers are not supported on CPU")  # we say so
        for i, group in enumerate(optimizer.param_groups):
            for j, parameter in enumerate(group["params"]):
                optimizer.init_state(group, parameter, i, j)
    return cast(torch.optim.Optimizer, optimizer)


def _parameters(groups: Groups) -> list[nn.Parameter]:
    return [parameter for group in groups for parameter in group["params"]]


def remarks(
    name: OptimizerName, trained: Mapping[str, nn.Parameter], places: Mapping[str, Place]
) -> list[str]:
    """What a user should know of the optimizer on this model and device; empty for AdamW."""
    found: list[str] = []
    if is_paged(name) and all(p.device.type == "cpu" for p in trained.values()):
        found.append(
            f"train.optimizer={name}: paging is not applicable here (no GPU); same numbers, "
            "kept in ordinary memory"
        )
    if name == "muon":
        moved = [p for n, p in trained.items() if moves_by_muon(p.shape, places[n])]
        rest = len(trained) - len(moved)
        found.append(
            f"train.optimizer=muon moves {len(moved)} matrices ({sum(p.numel() for p in moved):,} "
            f"numbers); AdamW moves the other {rest} weights (embedding, head, what is not 2-D)"
        )
    return found


def update_bytes(
    name: OptimizerName, trained: Mapping[str, nn.Parameter], places: Mapping[str, Place]
) -> int:
    """What gradients and moments take on the weights' device, beyond the weights themselves.

    Paged moments on a GPU count as none: they leave it when it is full.
    """
    total = 0
    for key, parameter in trained.items():
        # A master in two halves shows its upper 16 bits; its gradient is float32 all the same.
        total += parameter.numel() * max(parameter.element_size(), 4)
        pageable = is_paged(name) and parameter.device.type == "cuda"
        if not (pageable and parameter.numel() >= LEAST_PAGED):
            total += moment_bytes(name, parameter.shape, places[key])
    return total


def require_package(name: OptimizerName) -> None:
    """Raise EnvironmentFault where the optimizer's package is not installed; loads nothing."""
    if name in FROM_BITSANDBYTES and importlib.util.find_spec("bitsandbytes") is None:
        raise _absent(name, "is not installed")


def _absent(name: OptimizerName, state: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"train.optimizer={name} needs the package bitsandbytes, which {state}",
        remedy="pip install 'hone[quantize]', or take another train.optimizer",
    )


def is_exempt(name: str, parameter: Tensor) -> bool:
    """Whether weight decay leaves a parameter alone: biases, norms and all else with one dimension."""
    leaf = name.rsplit(".", 1)[-1]
    return parameter.ndim < 2 or leaf == "bias" or leaf.endswith("_bias")


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """The rate of the next update, for every parameter (times its group's `rate_scale`)."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("rate_scale", 1.0)


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The global 2-norm, a scalar left on the device."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def clip_gradients(parameters: Sequence[nn.Parameter], norm: Tensor, max_norm: float) -> None:
    """Scale all gradients by `max_norm / (norm + 1e-6)` where that is below 1 (Pascanu et al. 2013)."""
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
