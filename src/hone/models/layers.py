"""The decoder layers of a model as modules that transformers can compute again one by one. It changes nothing."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from hone.errors import ConfigError
from hone.models import parts


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers, first to last; none where they cannot be told apart."""
    try:
        names = parts.decoder_layers(model)
    except ConfigError:
        return []
    found = [model.get_submodule(name) for name in names]
    return found if all(isinstance(layer, GradientCheckpointingLayer) for layer in found) else []
