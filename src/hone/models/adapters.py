"""Low-rank adapters, through PEFT: attach, with noise by prefix and weights named by the seed.

It knows no rows and no optimizer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from hone.config.sections import LoraSection
from hone.errors import ConfigError, nearest
from hone.models.fused_lora import FusedLinear


def attach_lora(model: PreTrainedModel, section: LoraSection, *, seed: int) -> PeftModel:
    """Freeze `model` and put adapters beside the chosen layers; the same seed gives the same weights.

    Adapter weights are float32 whatever the base is. Raises ConfigError where no layer matches.
    """
    config = LoraConfig(
        r=section.r,
        lora_alpha=cast(int, section.alpha),
        lora_dropout=section.dropout,
        target_modules=section.target_modules,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in model.modules()),
    )
    # PEFT's own way to give it a layer class; nothing of it reaches the saved adapter.
    config._register_custom_module({nn.Linear: FusedLinear})  # pyright: ignore[reportPrivateUsage]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an older name
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            names = {name.rsplit(".", 1)[-1] for name, m in _modules(model) if _linear(m)}
            wanted = section.target_modules
            first = wanted if isinstance(wanted, str) else ",".join(wanted)
            raise ConfigError(
                f"tuning.lora.target_modules matches no layer: {first!r}",
                remedy=nearest(first, names | {"all-linear"}),
            ) from error
    return cast(PeftModel, adapted)


def _modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(cast("Iterable[tuple[str, nn.Module]]", model.named_modules()))


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def set_dropout(model: nn.Module, make: Any) -> int:
    """Replace each adapter's dropout by `make(p, site)`; returns how many were replaced."""
    replaced = 0
    for name, layer in _modules(model):
        if not isinstance(layer, LoraLayer):
            continue
        for adapter, dropout in list(layer.lora_dropout.items()):
            if isinstance(dropout, nn.Dropout) and dropout.p > 0:
                layer.lora_dropout[adapter] = make(dropout.p, f"{name}.{adapter}")
                replaced += 1
    return replaced
