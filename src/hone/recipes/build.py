"""From a model folder to the engine's unit: weights, adapters, precision, and whether rows may share.

It composes `models` and `engine`; it knows no rows beyond their lengths.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hone.config.sections import Config, FreezeSection, QuantizationSection
from hone.engine.device import same_bits_cannot_be_had
from hone.engine.loss import PackLoss
from hone.engine.noise import PrefixDropout, disturb_embeddings
from hone.engine.objective import Objective
from hone.engine.precision import DTYPES, Precision, seconds_by_precision
from hone.engine.probe import probe
from hone.errors import ConfigError
from hone.models import attention, facts, gpu_attention
from hone.models.adapters import set_dropout
from hone.models.fused_norm import fuse_norms
from hone.models.head import Head
from hone.models.load import load_config, load_model, quiet, stored_dtype, takes_packs
from hone.models.parts import ALL_LINEAR
from hone.models.quantization import (
    agree,
    quantize_linears,
    require_bitsandbytes,
    stored_quantization,
)
from hone.models.source import read_config
from hone.models.tuning import Start, Tuned, narrow, trains_base, tune
from hone.models.unsloth import load_with_unsloth
from hone.runs.events import Say

_TRIAL_LAYERS = 2
_TRIAL_VOCABULARY = 8192


@dataclass(frozen=True)
class Built:
    """What the engine trains, and what the artifact is written from."""

    loss: PackLoss
    model: PreTrainedModel
    tuned: Tuned
    alone_because: str | None
    """Why rows run one at a time; None where they share Packs."""


def resolve_threads(setting: int | str, *, sharers: int = 1) -> int:
    """CPU threads of the step: as set, or what this process may use, divided by the `sharers` beside it."""
    if isinstance(setting, int):
        return setting
    allowed = max(1, len(os.sched_getaffinity(0)) // sharers)
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(said)) if said.isdigit() and int(said) > 0 else allowed


def resolve_precision(
    folder: Path, config: Config, *, say: Say, device: torch.device | None = None
) -> Precision:
    """As set; for `auto` the faster one here, tried on two layers of the model with made-up weights.

    A GPU that has bf16 units is not tried: there it is many times as fast.
    """
    if config.train.precision != "auto":
        return config.train.precision
    if device is not None and device.type == "cuda":
        chosen = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        message = f"train.precision: {chosen}, since this GPU {'has' if chosen == 'bf16' else 'lacks'} bf16 units"
        say("notice", code="precision", message=message)
        return chosen

    def make(precision: Precision) -> PackLoss:
        shape = load_config(folder)
        for part in (shape, shape.get_text_config()):
            if getattr(part, "num_hidden_layers", 0) > _TRIAL_LAYERS:
                part.num_hidden_layers = _TRIAL_LAYERS
                if getattr(part, "layer_types", None):
                    part.layer_types = part.layer_types[:_TRIAL_LAYERS]
            part.vocab_size = min(part.vocab_size, _TRIAL_VOCABULARY)
            part.pad_token_id = None  # it may lie beyond the cut vocabulary
        with quiet():
            make_model = cast("Callable[..., PreTrainedModel]", AutoModelForCausalLM.from_config)
            held = _held_in(config, precision)
            model = make_model(shape, dtype=held)
        if config.tuning.method == "qlora":
            quantize_linears(model, config.tuning.quantization)
        plain = _without_choices(config)
        return _wrap(model, plain, precision, Start(), held=held, shared=takes_packs(model)).loss

    attention.register()
    seconds = seconds_by_precision(make)
    chosen = min(seconds, key=lambda name: seconds[name])
    other = max(seconds, key=lambda name: seconds[name])
    say(
        "notice",
        code="precision",
        message=f"train.precision: {chosen}, measured {seconds[other] / seconds[chosen]:.2f} times as fast "
        f"as {other} here",
        seconds=seconds,
    )
    return chosen


def _without_choices(config: Config) -> Config:
    """The method alone, without what names layers, modules and beginnings, for a trial on two layers."""
    lora = config.tuning.lora.model_copy(
        update={
            "target_modules": ALL_LINEAR,
            "layers": None,
            "init": "default",
            "modules_to_save": [],
        }
    )
    freeze = FreezeSection(trainable_layers=1)
    tuning = config.tuning.model_copy(update={"lora": lora, "freeze": freeze})
    return config.model_copy(update={"tuning": tuning})


def _held_in(config: Config, precision: Precision) -> torch.dtype:
    """Trained weights are float32; frozen ones may be held in the arithmetic's own type."""
    return torch.float32 if config.tuning.method == "full" else DTYPES[precision]


def _loaded_in(folder: Path, config: Config, held: torch.dtype, start: Start) -> torch.dtype:
    """The type in which weights are read: no narrower than what must be taken from them exactly."""
    stored = stored_dtype(folder)
    if config.tuning.method == "qlora":
        return stored  # what is rounded does not depend on train.precision
    return torch.float32 if trains_base(config, start) and stored != held else held


def _wrap(
    model: PreTrainedModel,
    config: Config,
    precision: Precision,
    start: Start,
    *,
    held: torch.dtype,
    shared: bool,
    originals: dict[str, torch.Tensor] | None = None,
) -> Built:
    tuned = tune(model, config, start=start, originals=originals)
    narrow(model, held)
    fuse_norms(model)
    if tuned.adapted is not None:
        set_dropout(model, PrefixDropout)
    if config.train.neftune_alpha:
        disturb_embeddings(model.get_input_embeddings(), config.train.neftune_alpha)
    if shared:
        model.set_attn_implementation(gpu_attention.name_for(model.device))
    model.train()
    autocast = torch.bfloat16 if precision == "bf16" else None
    train = config.train
    objective = Objective(train.loss, label_smoothing=train.label_smoothing, z_loss=train.z_loss)
    loss = PackLoss(model, shared=shared, autocast=autocast, objective=objective)
    return Built(loss, model, tuned, None)


def build(
    folder: Path,
    config: Config,
    *,
    precision: Precision,
    longest: int,
    say: Say,
    device: torch.device | None = None,
    start: Start | None = None,
) -> Built:
    """Load, adapt, and find out by rule and by probe whether rows of a step may share their beginnings.

    Whatever is changed or falls back is said as a `notice`.
    """
    start = start or Start()
    quantization = _quantization(folder, config)
    held = _held_in(config, precision)
    if config.tuning.method == "freeze" and stored_dtype(folder) != held:
        held = torch.float32  # the whole model is saved: what stays must stay as it was
    dtype = _loaded_in(folder, config, held, start)
    if config.model.loader == "unsloth":
        loaded = load_with_unsloth(folder, dtype=dtype, quantization=quantization, longest=longest)
    else:
        loaded = load_model(folder, dtype=dtype, quantization=quantization, device=device)
    for message in loaded.notices:
        say("notice", code="model", message=message)
    model = loaded.model
    own = str(getattr(model.config, "_attn_implementation", None) or "eager")
    reason = facts.why_rows_run_alone(read_config(folder), longest=longest)
    if reason is None and not takes_packs(model):
        reason = "its family does not ask the attention interface"
    originals = _originals(folder, config, dtype)
    built = _wrap(
        model, config, precision, start, held=held, shared=reason is None, originals=originals
    )
    del originals
    for message in built.tuned.notices:
        say("notice", code="tuning", message=message)
    return _settled(built, own, reason, precision, say)


def build_to_evaluate(
    model: PreTrainedModel, folder: Path, *, precision: Precision, longest: int, say: Say
) -> Built:
    """The engine's unit over a model that answers (`folder` holds its base), by the same rule and probe; nothing trains.

    The model is left with our attention, and without weights that take a gradient.
    """
    own = str(getattr(model.config, "_attn_implementation", None) or "eager")
    model.requires_grad_(False)
    reason = facts.why_rows_run_alone(read_config(folder), longest=longest)
    if reason is None and not takes_packs(model):
        reason = "its family does not ask the attention interface"
    attention.register()
    if reason is None:
        model.set_attn_implementation(gpu_attention.name_for(model.device))
    autocast = torch.bfloat16 if precision == "bf16" else None
    loss = PackLoss(model, shared=reason is None, autocast=autocast)
    return _settled(Built(loss, model, Tuned(None), None), own, reason, precision, say)


def _settled(built: Built, own: str, reason: str | None, precision: Precision, say: Say) -> Built:
    """`built` with rows shared where the probe allows it (`reason`: why a rule does not), and a head that is the model's."""
    model = built.model
    if reason is None:
        reason = _probe(built, own, precision)
        if reason is not None and same_bits_cannot_be_had(reason):
            message = f"kernels without fixed bits are used, since {reason}: a resumed run may differ in its last bits"
            say("notice", code="deterministic", message=message)
            reason = _probe(built, own, precision)
        if reason is not None:
            model.set_attn_implementation(own)
            built = _apart(built)
    built = _check_head(built)
    if reason is None:
        return built
    say(
        "notice",
        code="row-by-row",
        message=f"rows of this model run one at a time ({reason}): same result, no prefix sharing",
    )
    return Built(built.loss, built.model, built.tuned, reason)


def _quantization(folder: Path, config: Config) -> QuantizationSection | None:
    """How the base is rounded as it loads; refuses a base that is rounded already in another way, or unasked."""
    stored = stored_quantization(read_config(folder))
    if config.tuning.method != "qlora":
        if stored is not None:
            raise ConfigError(
                f"the base is quantised already ({stored.bits} bits), and tuning.method is "
                f"{config.tuning.method!r}",
                where=str(folder),
                remedy="set tuning.method=qlora, or name the unquantised base",
            )
        return None
    require_bitsandbytes()
    if stored is not None:
        agree(stored, config.tuning.quantization)
    return config.tuning.quantization


def _originals(folder: Path, config: Config, dtype: torch.dtype) -> dict[str, torch.Tensor] | None:
    """The linear weights before rounding, where adapters begin with what it took."""
    tuning = config.tuning
    if tuning.method != "qlora" or tuning.lora.init != "loftq" or config.model.adapter:
        return None
    if stored_quantization(read_config(folder)) is not None:
        raise ConfigError(
            "tuning.lora.init=loftq needs the weights before they were quantised, and this base has them no more",
            remedy="name the unquantised base, or set tuning.lora.init=default",
        )
    from hone.models.rounding import linear_weights

    return linear_weights(load_model(folder, dtype=dtype).model)


def _probe(built: Built, own: str, precision: Precision) -> str | None:
    """None where shared rows equal rows alone on these weights, else what was seen."""
    ours = gpu_attention.name_for(built.model.device)
    alone = "eager" if own in (attention.NAME, ours) or _refuses_sdpa(built.model) else own
    try:
        probed = probe(built.loss, attention=ours, alone=alone, dtype=DTYPES[precision])
    except Exception as error:
        if not isinstance(error, RuntimeError) and built.model.device.type == "cpu":
            raise
        # A kernel's compiler may raise anything; rows alone need no kernel of ours.
        return f"the probe failed: {str(error).strip().splitlines()[0]}"
    if probed.passed:
        return None
    return (
        f"the probe found shared rows off by {probed.loss_error:.1e} in the loss and "
        f"{probed.gradient_error:.1e} in the gradient"
    )


def _refuses_sdpa(model: PreTrainedModel) -> bool:
    """The stock sdpa path has no soft cap."""
    return getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None


def _check_head(built: Built) -> Built:
    """Where trunk and head apart are not the model's logits, take the whole model as one chunk."""
    if built.loss.shared or built.loss.head.equals(built.model):
        return built
    return _apart(built, head=Head.whole(built.model))


def _apart(built: Built, head: Head | None = None) -> Built:
    """The same, for rows that run one at a time."""
    before, model = built.loss, built.model
    loss = PackLoss(
        model, shared=False, head=head, autocast=before.autocast, objective=before.objective
    )
    return Built(loss, model, built.tuned, None)
