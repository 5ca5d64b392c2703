"""Low-rank adapters, through PEFT: attach, with noise by prefix and weights named by the seed.

It knows no rows and no optimizer.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from hone.errors import ConfigError, nearest
from hone.models.fused_lora import FusedLinear
from hone.models.parts import (
    ALL_LINEAR,
    decoder_layers,
    embeddings_name,
    embeddings_of,
    head_name,
    head_of,
    is_tied,
    linear_names,
    modules,
    named,
)
from hone.models.quantization import is_quantized

if TYPE_CHECKING:
    from hone.config.sections import LoraSection

ADAPTER = "default"
_TAKES_FROM_BASE = (
    "pissa",
    "olora",
)  # initialisations that leave the base without what the adapter begins with


def attach_lora(
    model: PreTrainedModel,
    section: LoraSection,
    *,
    seed: int,
    trained_rows: Mapping[str, Sequence[int]] | None = None,
) -> PeftModel:
    """Freeze `model` and put adapters beside the chosen layers; the same seed gives the same weights.

    `trained_rows` are ids whose rows of a named module train too. Adapter weights are float32 whatever the
    base is. Raises ConfigError where no layer matches, or where settings do not fit this model.
    """
    saved = whole_modules(model, section.modules_to_save)
    config = LoraConfig(
        r=section.r,
        lora_alpha=cast(int, section.alpha),
        lora_dropout=section.dropout,
        target_modules=_targets(model, section),
        layers_to_transform=_layers(model, section),
        use_rslora=section.rslora,
        use_dora=section.dora,
        init_lora_weights=cast(Any, _initialisation(model, section)),
        modules_to_save=saved or None,
        trainable_token_indices={k: list(v) for k, v in (trained_rows or {}).items()} or None,
        task_type="CAUSAL_LM",
        fan_in_fan_out=transposed(model),
    )
    adapted = _attach(model, config, section, seed=seed)
    settle_adapter(model, dropout=section.dropout)
    return adapted


def prepare(config: LoraConfig) -> LoraConfig:
    """Let PEFT make our layers instead of its own; nothing of it reaches a saved adapter."""
    config._register_custom_module({nn.Linear: FusedLinear})  # pyright: ignore[reportPrivateUsage]
    return config


def transposed(model: nn.Module) -> bool:
    """Whether the model's linear layers hold their weight as [inputs, outputs], as GPT-2's do."""
    return any(type(module).__name__ == "Conv1D" for module in model.modules())


def whole_modules(model: PreTrainedModel, names: Sequence[str]) -> list[str]:
    """Whole names of what trains beside the adapters; embeddings and head together where they are one tensor.

    Raises ConfigError for names that match nothing, and for a module that is quantised.
    """
    found = named(model, names, setting="tuning.lora.modules_to_save")
    ends = [embeddings_name(model), head_name(model)]
    if is_tied(model) and set(found) & set(ends):
        found = list(dict.fromkeys([*found, *ends]))
    inside = dict(modules(model))
    for name in found:
        if any(is_quantized(module) for module in inside[name].modules()):
            raise ConfigError(
                f"tuning.lora.modules_to_save: {name} is quantised and cannot be trained whole",
                remedy="leave it to its adapter, or set tuning.method=lora",
            )
    return found


def settle_adapter(model: PreTrainedModel, *, dropout: float) -> None:
    """What PEFT leaves to do: one tensor where the base has one, and no noise where its prefix is not known.

    Raises ConfigError for dropout in the head.
    """
    if dropout and isinstance(head_of(model), LoraLayer):
        raise ConfigError(
            "tuning.lora.dropout is not offered for an adapter of the output head",
            remedy="set tuning.lora.dropout=0, or leave the head out of tuning.lora.target_modules",
        )
    tie_whole_modules(model)


def tie_whole_modules(model: PreTrainedModel) -> None:
    """Where embeddings and head are one tensor and both train whole, let them be one still."""
    embeddings, head = embeddings_of(model), head_of(model)
    if not (
        isinstance(embeddings, ModulesToSaveWrapper) and isinstance(head, ModulesToSaveWrapper)
    ):
        return
    if cast(Any, head.original_module).weight is cast(Any, embeddings.original_module).weight:
        one = cast(Any, embeddings.modules_to_save[ADAPTER]).weight
        cast(Any, head.modules_to_save[ADAPTER]).weight = one


def set_dropout(model: nn.Module, make: Any) -> int:
    """Replace each adapter's dropout by `make(p, site)`; returns how many were replaced."""
    replaced = 0
    for name, layer in modules(model):
        if not isinstance(layer, LoraLayer):
            continue
        for adapter, dropout in list(layer.lora_dropout.items()):
            if isinstance(dropout, nn.Dropout) and dropout.p > 0:
                layer.lora_dropout[adapter] = make(dropout.p, f"{name}.{adapter}")
                replaced += 1
    return replaced


def state_of(adapted: PeftModel) -> dict[str, Tensor]:
    """What a saved adapter holds, by the names of its file; the trained weights themselves."""
    # The base's own rows are never saved with it: those of new tokens are weights of the adapter.
    return peft.get_peft_model_state_dict(
        adapted, state_dict=adapted.state_dict(keep_vars=True), save_embedding_layers=False
    )


def beginning_of(adapted: PeftModel, section: LoraSection) -> dict[str, Tensor]:
    """A copy of the low-rank weights at their start, where the base was left without what they stand for.

    Empty for other initialisations.
    """
    if section.init not in _TAKES_FROM_BASE:
        return {}
    return {
        name: tensor.detach().clone()
        for name, tensor in state_of(adapted).items()
        if ".lora_A." in name or ".lora_B." in name
    }


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names and bytes of float32 weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def plain_state(
    adapted: PeftModel,
    beginning: Mapping[str, Tensor],
    weights: Mapping[str, Tensor] | None = None,
) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Config and weights of an adapter for the base as it was, to be saved.

    `weights` are those of `state_of`, whole, where several ranks hold the adapter's own in parts.
    What an initialisation took out of the base is put back: with W = W' + s B0 A0, the trained W' + s B A is
    W + s (B A - B0 A0), an adapter of twice the rank.
    """
    config = cast(LoraConfig, adapted.peft_config[ADAPTER])
    config.init_lora_weights = True  # it begins with the saved weights
    held = state_of(adapted) if weights is None else weights
    state = {name: tensor.detach() for name, tensor in held.items()}
    if not beginning:
        return config, state
    for name, start in beginning.items():
        rows = ".lora_A." in name
        state[name] = torch.cat([state[name], start if rows else -start], dim=0 if rows else 1)
    config = copy.copy(config)
    config.r *= 2
    config.lora_alpha = cast(int, config.lora_alpha * (2**0.5 if config.use_rslora else 2))
    return config, state


def _targets(model: PreTrainedModel, section: LoraSection) -> str | list[str]:
    """`target_modules` as PEFT takes it; with `layers` it wants names."""
    wanted = section.target_modules
    if section.layers is None:
        return wanted
    if wanted == ALL_LINEAR:
        return linear_names(model)
    if isinstance(wanted, str):
        raise ConfigError(
            "tuning.lora.layers goes with a list of module names, and target_modules is an expression",
            remedy=r"say the layers in it, e.g. '.*\.layers\.(0|1)\..*(q|v)_proj'",
        )
    return wanted


def _layers(model: PreTrainedModel, section: LoraSection) -> list[int] | None:
    """Indices of the layers that get adapters, from 0."""
    if section.layers is None:
        return None
    count = len(decoder_layers(model))
    beyond = [index for index in section.layers if not -count <= index < count]
    if beyond:
        raise ConfigError(
            f"tuning.lora.layers names layer {beyond[0]}; the model has {count} layers",
            remedy=f"allowed: 0 to {count - 1}, or -{count} to -1",
        )
    return sorted({index % count for index in section.layers})


def _initialisation(model: PreTrainedModel, section: LoraSection) -> bool | str:
    """`init_lora_weights` as PEFT takes it."""
    match section.init:
        case (
            "default" | "loftq"
        ):  # the latter's weights are laid over it, see `hone.models.rounding`
            return True
        case "pissa" if section.pissa_niter is not None:
            return f"pissa_niter_{section.pissa_niter}"
        case "olora" if transposed(model):
            raise ConfigError(
                "tuning.lora.init=olora does not know this family's transposed layers",
                remedy="set tuning.lora.init=pissa",
            )
        case other:
            return other


def _attach(
    model: PreTrainedModel, config: LoraConfig, section: LoraSection, *, seed: int
) -> PeftModel:
    names = linear_names(model)  # before any has an adapter
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an older name
        warnings.filterwarnings(
            "ignore", ".*tie_word_embeddings.*"
        )  # we tie them, see settle_adapter
        torch.manual_seed(seed)
        try:
            adapted = cast(PeftModel, get_peft_model(model, prepare(config)))
        except (ValueError, AttributeError, TypeError) as error:
            raise _refusal(model, section, names, str(error)) from error
    for name, layer in modules(model):
        down: Any = layer.lora_A if isinstance(layer, LoraLayer) else {}
        if ADAPTER in down and down[ADAPTER].weight.shape[0] < section.r:
            least = int(down[ADAPTER].weight.shape[0])
            raise ConfigError(
                f"tuning.lora.init={section.init} with tuning.lora.r={section.r}: {name} has only {least} "
                "inputs or outputs, and so many singular vectors",
                remedy=f"set tuning.lora.r to {least} or less, or tuning.lora.init=default",
            )
    return adapted


def _refusal(
    model: PreTrainedModel, section: LoraSection, names: Sequence[str], why: str
) -> ConfigError:
    """What PEFT does not take, in the words of our settings."""
    wanted = section.target_modules
    first = wanted if isinstance(wanted, str) else ",".join(wanted)
    if "target" in why.lower() and "not found" in why.lower():
        return ConfigError(
            f"tuning.lora.target_modules matches no layer: {first!r}",
            remedy=nearest(first, {*names, ALL_LINEAR}),
        )
    if any(parameter.ndim == 3 for parameter in model.parameters()):
        return ConfigError(
            "the experts of this model are one tensor a layer, and adapters of such tensors take no dropout, no "
            f"DoRA and no init but the default: {why.strip().splitlines()[0]}",
            remedy="leave these out, or leave the experts out: "
            f"tuning.lora.target_modules=[{', '.join(names)}]",
        )
    return ConfigError(
        f"these settings of tuning.lora do not go together: {why.strip().splitlines()[0]}",
        remedy="change tuning.lora.init, tuning.lora.dora or tuning.lora.target_modules",
    )
