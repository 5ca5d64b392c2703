"""What makes a step fast beside its arithmetic: fused kernels, compiled layers, offload; each tried before it is used.

Whatever is on, and what is off and why, is said as one `engine` event. Nothing here changes what is computed.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from hone.engine.device import ask_for_same_bits, device_name, resolve_device
from hone.engine.loss import PackLoss
from hone.engine.objective import weighted_losses
from hone.engine.precision import DTYPES, Precision
from hone.engine.probe import compare, read_pack
from hone.engine.rehearsal import made_up_pack
from hone.engine.split_weights import split_weights
from hone.models import compiled, varlen
from hone.models.fused_lora import FusedLinear
from hone.models.fused_norm import FusedRMSNorm
from hone.models.kernels import KERNELS, put_kernels, take_back, why_not
from hone.models.layers import decoder_layers
from hone.models.offload import Offload
from hone.models.recompute import can_recompute
from hone.runs.events import Say

if TYPE_CHECKING:
    from hone.config.sections import ComputeSection, Config
    from hone.data.dataset import Figures
    from hone.recipes.build import Built

_WORTH_SECONDS = 600  # of a run: compiling takes about one minute, and is to gain more than that
_SPEED = 3e14  # operations a second that a GPU is taken to reach, for that decision only
_TRIED_ROWS = (96, 40, 120, 70)  # tokens; what is new must give the same numbers on these
_WARM_TIMES = (
    1,
    3,
)  # as many times these rows: two lengths, so that graphs are made for every length


@dataclass
class Engine:
    """What is on and what is off, in words."""

    on: list[str] = field(default_factory=list[str])
    off: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def leave(self, what: str, why: str) -> None:
        """Something is off for a reason."""
        self.off.append({"what": what, "why": why})


def take_device(compute: ComputeSection, before: str | None, *, say: Say) -> torch.device:
    """The device of a run, asked for fixed bits where they are wanted; said where the run began on another kind."""
    device = resolve_device(compute.device)
    ask_for_same_bits(device, compute.deterministic)
    if before is not None and before != device.type:
        message = (
            f"this run began on {before} and goes on on {device.type}: the last bits may differ"
        )
        say("notice", code="device", message=message)
    return device


def why_not_compile(
    built: Built, config: Config, figures: Figures, identity: Mapping[str, Any]
) -> str | None:
    """Why layers are not compiled, or None. What a run's `identity` says of it holds: compiling changes bits."""
    setting, asked = config.compute.compile, config.train
    if setting == "auto" and "not_compiled" in identity:
        return identity["not_compiled"]
    passes = asked.epochs
    if asked.max_steps is not None:
        passes = asked.max_steps * asked.batch_size / max(1, figures.rows)
    return cannot_compile(
        built.loss.placing.device,
        setting,
        parameters=built.model.num_parameters(),
        tokens=round(passes * figures.tokens),
    )


def cannot_compile(
    device: torch.device, setting: str | bool, *, parameters: int, tokens: int
) -> str | None:
    """Why layers of a model with so many parameters are not compiled, or None. `tokens` are those of the whole run."""
    if setting is False:
        return "compute.compile=false"
    if setting == "auto":
        if device.type != "cuda":
            return "on a CPU it takes longer than it gains"
        seconds = 4 * parameters * tokens / _SPEED
        if seconds < _WORTH_SECONDS:
            return f"the run is short: about {max(1, round(seconds))} s"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    compiler = os.environ.get("CC" if device.type == "cuda" else "CXX")
    found = ("cc", "gcc", "clang") if device.type == "cuda" else ("c++", "g++", "clang++")
    if not compiler and not any(shutil.which(name) for name in found):
        return f"no compiler is here ({', '.join(found)})"
    return None


def quicken(
    built: Built,
    config: Config,
    *,
    precision: Precision,
    why_not_compiled: str | None,
    say: Say,
    backend: str = "inductor",
    in_parts: bool = False,
) -> Engine:
    """Put on what this machine and model allow, each kept only where loss and gradient stay the same; says `engine`.

    `in_parts` is whether several ranks will hold parts of the weights.
    """
    loss, compute, engine = built.loss, config.compute, Engine()
    device = loss.placing.device
    _describe(built, precision, engine)
    compiles = why_not_compiled is None and loss.shared
    _kernels(loss, compute, engine, precision=precision, compiles=compiles)
    if why_not_compiled is not None:
        engine.leave("compiled layers", why_not_compiled)
    elif not loss.shared:
        engine.leave("compiled layers", "rows of this model run one at a time")
    else:
        _compile(loss, engine, precision=precision, backend=backend, same=compute.deterministic)
    if device.type == "cuda" and loss.terms is weighted_losses:
        why = "families call theirs by a name in their own file, and nothing is patched; compiled layers fuse it"
        engine.leave("fused rotary embedding", why)
    _offload(loss, compute, engine)
    wanted = compute.split_weights
    if in_parts and (wanted is True or (wanted == "auto" and device.type == "cuda")):
        engine.leave("split weights", "ranks hold parts of the weights")
    else:
        _split(built, compute, engine, precision=precision, optimizer=config.train.optimizer)
    if compute.gradient_checkpointing not in ("auto", False, 0) and not can_recompute(built.model):
        engine.leave("recomputed layers", "the layers of this family cannot be told apart")
    if device.type != "cuda" and not compute.deterministic:
        engine.leave(
            "kernels without fixed bits", "not applicable here: a CPU's give the same bits anyway"
        )
    say("engine", device=device_name(device), on=engine.on, off=engine.off)
    return engine


def _describe(built: Built, precision: Precision, engine: Engine) -> None:
    """The parts that need no decision."""
    loss = built.loss
    engine.on.append(precision)
    if loss.placing.on_gpu and loss.shared:
        engine.on.append("flex attention where rows share")
        if varlen.is_here() and precision == "bf16":
            engine.on.append("flash attention where none do")
        else:
            why = "float32" if varlen.is_here() else "this torch has no varlen_attn"
            engine.leave("flash attention", why)
    elif loss.shared:
        engine.on.append("attention by shared beginnings")
    modules = list(built.model.modules())
    if any(isinstance(m, FusedLinear) for m in modules):
        engine.on.append("fused adapters")
    if any(isinstance(m, FusedRMSNorm) for m in modules):
        engine.on.append("fused norms")
    # Of every objective: the gradient is taken with the loss, chunk by chunk (`hone.engine.loss`).
    engine.on.append("fused linear cross-entropy")


def _kernels(
    loss: PackLoss,
    compute: ComputeSection,
    engine: Engine,
    *,
    precision: Precision,
    compiles: bool,
) -> None:
    wanted = _wanted(compute)
    if not wanted:
        engine.leave("liger kernels", "compute.kernels=none")
        return
    device = loss.placing.device
    absent = why_not(device)
    if absent is not None:
        if device.type == "cuda" or compute.kernels != "auto":
            where = "" if device.type == "cuda" else "not applicable here: "
            engine.leave("liger kernels", where + absent)
        return
    if compiles and compute.kernels == "auto":
        engine.leave("liger kernels", "compiled layers fuse the same operations")
        return
    before = _read(loss)
    replaced = put_kernels(loss.model, wanted)
    if not replaced:
        engine.leave("liger kernels", "none of them is what this family computes")
        return
    failed = _tried(lambda: _differs(loss, before, precision))
    if failed is None:
        engine.on.append(f"liger kernels ({', '.join(wanted)})")
    else:
        take_back(replaced)
        engine.leave("liger kernels", failed)


def _wanted(compute: ComputeSection) -> tuple[str, ...]:
    if compute.kernels == "none":
        return ()
    if compute.kernels == "auto":
        return KERNELS
    return (compute.kernels,) if isinstance(compute.kernels, str) else tuple(compute.kernels)


def _compile(
    loss: PackLoss, engine: Engine, *, precision: Precision, backend: str, same: bool
) -> None:
    before, padded = _read(loss), loss.placing.rounds_up
    model = loss.model

    made = compiled.graphs()
    count, left = compiled.compile_layers(model, backend=backend, deterministic=same)
    named = compiled.settings(backend, deterministic=same)
    loss.terms = torch.compile(weighted_losses, **named)
    loss.placing.rounds_up = True
    failed = "no part of a layer can be compiled"
    if count:
        failed = _tried(lambda: _differs(loss, before, precision))
    if failed is not None:
        compiled.undo(model)
        loss.terms, loss.placing.rounds_up = weighted_losses, padded
        engine.leave("compiled layers", failed)
        return
    engine.on.append(f"compiled layers ({compiled.graphs() - made} graphs) and head")
    if left:
        engine.leave("compiled " + ", ".join(left), "which weights are used depends on the tokens")


def _offload(loss: PackLoss, compute: ComputeSection, engine: Engine) -> None:
    if not compute.offload_activations:
        return
    if loss.placing.device.type != "cuda":
        engine.leave(
            "offloaded activations", "not applicable here: they are in this memory already"
        )
        return
    loss.offload = Offload(loss.placing.device)
    engine.on.append("offloaded activations")


def _split(
    built: Built,
    compute: ComputeSection,
    engine: Engine,
    *,
    precision: Precision,
    optimizer: str,
) -> None:
    """Halve master weights, once nothing is tried any more."""
    trained = [p for p in built.model.parameters() if p.requires_grad]
    whole = built.tuned.adapted is None and any(
        p.dtype == torch.float32 and p.ndim > 1 for p in trained
    )
    asked = compute.split_weights is True
    if not (
        asked or (compute.split_weights == "auto" and built.loss.placing.device.type == "cuda")
    ):
        return
    if optimizer != "adamw" and precision == "bf16" and whole:
        engine.leave("split weights", f"train.optimizer={optimizer} moves whole ones")
        return
    if precision != "bf16" or not whole:
        if asked:
            engine.leave(
                "split weights", "not applicable here: no matrix trains in bf16 arithmetic"
            )
        return
    built.loss.lows = split_weights(trained)
    engine.on.append("float32 masters in two halves")


def layers_to_recompute(built: Built, compute: ComputeSection) -> int | None:
    """How many layers `compute.gradient_checkpointing` asks to be computed again; None: as memory asks.

    With activations offloaded `auto` means all: only then is there little enough to send.
    """
    wanted = compute.gradient_checkpointing
    if not can_recompute(built.model):
        return 0
    layers = len(decoder_layers(built.model))
    if wanted == "auto":
        return layers if built.loss.offload is not None else None
    return math.ceil(float(wanted) * layers)


def _read(loss: PackLoss, times: int = 1) -> Any:
    rows = [length * times for length in _TRIED_ROWS] if loss.shared else _TRIED_ROWS[:1]
    longest = _positions(loss)
    rows = [min(length, longest) for length in rows]
    return read_pack(loss, made_up_pack(rows, vocab_size=loss.head.vocab_size))


def _positions(loss: PackLoss) -> int:
    """Most tokens of a row that the model has positions for, as far as its config says."""
    config: Any = loss.model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or max(_TRIED_ROWS))


def _differs(loss: PackLoss, before: Any, precision: Precision) -> str | None:
    """None where loss and gradient are as `before`, on short Packs and on longer ones."""
    found = compare(_read(loss), before, dtype=DTYPES[precision])
    for times in _WARM_TIMES[1:]:
        _read(loss, times)
    if found.passed:
        return None
    return (
        f"it gave another result: {found.loss_error:.1e} off in the loss, "
        f"{found.gradient_error:.1e} in the gradient"
    )


def _tried(attempt: Callable[[], str | None]) -> str | None:
    """What `attempt` found wrong, or the first line of what it raised: a compiler may raise anything."""
    try:
        return attempt()
    except Exception as error:  # noqa: BLE001 - the reason is said, and what failed stays off
        lines: Sequence[str] = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:200]
