"""Freezing: which of a model's own weights train, and which stay as they are. It knows no adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from transformers import PreTrainedModel

from hone.errors import ConfigError
from hone.models.parts import ALL, decoder_layers, embeddings_of, is_tied, matching, modules, named

if TYPE_CHECKING:
    from hone.config.sections import FreezeSection


def freeze(model: PreTrainedModel, section: FreezeSection) -> list[str]:
    """Let train what `section` names and nothing else; returns what a user should hear.

    Raises ConfigError where a name matches nothing, or where nothing would train.
    """
    wanted = [*_in_layers(model, section)]
    if section.extra_modules:
        setting = "tuning.freeze.extra_modules"
        wanted += named(model, section.extra_modules, setting=setting)
    model.requires_grad_(False)
    found = dict(modules(model))
    for name in wanted:
        found[name].requires_grad_(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            "tuning.freeze leaves nothing to train",
            remedy="set tuning.freeze.trainable_layers=2, or name tuning.freeze.extra_modules",
        )
    if is_tied(model) and _trains(embeddings_of(model)):
        return ["the embeddings and the head of this model are one tensor: both train"]
    return []


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _in_layers(model: PreTrainedModel, section: FreezeSection) -> list[str]:
    """Modules of the chosen layers, or of these the ones that are wanted."""
    if not section.trainable_layers:
        return []
    layers = decoder_layers(model)
    count = abs(section.trainable_layers)
    if count > len(layers):
        raise ConfigError(
            f"tuning.freeze.trainable_layers={section.trainable_layers}: the model has {len(layers)} layers",
            remedy=f"set it to {len(layers)} or less; tuning.method=full trains every weight",
        )
    chosen = layers[-count:] if section.trainable_layers > 0 else layers[:count]
    if section.trainable_modules == ALL:
        return chosen
    setting = "tuning.freeze.trainable_modules"
    wanted = matching(model, section.trainable_modules, setting=setting)
    inside = [name for name in wanted if any(name.startswith(f"{layer}.") for layer in chosen)]
    if not inside:
        raise ConfigError(
            f"{setting} matches nothing in the layers that train ({chosen[0]} to {chosen[-1]})",
            remedy="name modules of these layers, or set tuning.freeze.trainable_layers",
        )
    return inside
