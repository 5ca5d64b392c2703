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
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from hone.config.sections import Config
from hone.engine.loss import PackLoss
from hone.engine.noise import PrefixDropout
from hone.engine.precision import Precision, seconds_by_precision
from hone.engine.probe import probe
from hone.models import attention, facts
from hone.models.adapters import attach_lora, set_dropout
from hone.models.fused_norm import fuse_norms
from hone.models.head import Head
from hone.models.load import load_config, load_model, quiet, takes_packs
from hone.models.source import read_config
from hone.runs.events import Say

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TRIAL_LAYERS = 2
_TRIAL_VOCABULARY = 8192


@dataclass(frozen=True)
class Built:
    """What the engine trains, and what the artifact is written from."""

    loss: PackLoss
    model: PreTrainedModel
    adapted: PeftModel | None
    alone_because: str | None
    """Why rows run one at a time; None where they share Packs."""


def resolve_threads(setting: int | str, *, sharers: int = 1) -> int:
    """CPU threads of the step: as set, or what this process may use, divided by the `sharers` beside it."""
    if isinstance(setting, int):
        return setting
    allowed = max(1, len(os.sched_getaffinity(0)) // sharers)
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(said)) if said.isdigit() and int(said) > 0 else allowed


def resolve_precision(folder: Path, config: Config, *, say: Say) -> Precision:
    """As set; for `auto` the faster one here, tried on two layers of the model with made-up weights."""
    if config.train.precision != "auto":
        return config.train.precision

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
            model = make_model(shape, dtype=_held_in(config, precision))
        return _wrap(model, config, precision, shared=takes_packs(model)).loss

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


def _held_in(config: Config, precision: Precision) -> torch.dtype:
    """Trained weights are float32; frozen ones may be held in the arithmetic's own type."""
    return torch.float32 if config.tuning.method == "full" else DTYPES[precision]


def _wrap(model: PreTrainedModel, config: Config, precision: Precision, *, shared: bool) -> Built:
    adapted = None
    fuse_norms(model)
    if config.tuning.method == "lora":
        adapted = attach_lora(model, config.tuning.lora, seed=config.train.seed)
        set_dropout(model, PrefixDropout)
    if shared:
        model.set_attn_implementation(attention.NAME)
    if config.compute.gradient_checkpointing:
        model.activation_checkpointing_enable()
        if adapted is not None:
            model.enable_input_require_grads()
    model.train()
    autocast = torch.bfloat16 if precision == "bf16" else None
    return Built(PackLoss(model, shared=shared, autocast=autocast), model, adapted, None)


def build(folder: Path, config: Config, *, precision: Precision, longest: int, say: Say) -> Built:
    """Load, adapt, and find out by rule and by probe whether rows of a step may share their beginnings.

    Whatever is changed or falls back is said as a `notice`.
    """
    loaded = load_model(folder, dtype=_held_in(config, precision))
    for message in loaded.notices:
        say("notice", code="model", message=message)
    model = loaded.model
    if torch.cuda.is_available():
        say("notice", code="gpu-unused", message="a GPU is here; this version trains on the CPU")
    own = str(getattr(model.config, "_attn_implementation", None) or "eager")
    reason = facts.why_rows_run_alone(read_config(folder), longest=longest)
    if reason is None and not takes_packs(model):
        reason = "its family does not ask the attention interface"
    built = _wrap(model, config, precision, shared=reason is None)
    if reason is None:
        reason = _probe(built, own, precision)
        if reason is not None:
            model.set_attn_implementation(own)
            loss = PackLoss(model, shared=False, autocast=built.loss.autocast)
            built = Built(loss, model, built.adapted, None)
    built = _check_head(built)
    if reason is None:
        return built
    say(
        "notice",
        code="row-by-row",
        message=f"rows of this model run one at a time ({reason}): same result, no prefix sharing",
    )
    return Built(built.loss, built.model, built.adapted, reason)


def _probe(built: Built, own: str, precision: Precision) -> str | None:
    """None where shared rows equal rows alone on these weights, else what was seen."""
    alone = "eager" if own == attention.NAME or _refuses_sdpa(built.model) else own
    try:
        probed = probe(built.loss, attention=attention.NAME, alone=alone, dtype=DTYPES[precision])
    except RuntimeError as error:
        return f"the probe failed: {str(error).splitlines()[0]}"
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
    whole = PackLoss(
        built.model, shared=False, head=Head.whole(built.model), autocast=built.loss.autocast
    )
    return Built(whole, built.model, built.adapted, None)
