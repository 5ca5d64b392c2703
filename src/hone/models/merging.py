"""An adapter taken into its base's weights, layer by layer: each sum in float32, rounded once. It knows no files.

So a base can be held in two bytes a weight while it is merged, and comes out as if all of it had been held in four.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from hone.models.load import quiet
from hone.models.quantization import is_quantized


@torch.no_grad()
def merge_layers(adapted: PeftModel) -> PreTrainedModel:
    """The base with the adapter in its weights, which keep their types; `adapted` is used up.

    Raises ValueError, by PEFT, where a sum is not finite.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a layer is merged already, at the end
        for module in adapted.modules():
            if isinstance(module, BaseTunerLayer) and hasattr(module, "merge"):
                _merge(module)
        with quiet():
            return cast(PreTrainedModel, cast(Any, adapted).merge_and_unload(safe_merge=True))


def _merge(layer: BaseTunerLayer) -> None:
    """One layer's sum, in float32 and back."""
    base = layer.get_base_layer()
    before = [(parameter, parameter.dtype) for parameter in base.parameters(recurse=False)]
    for parameter, _ in before:
        parameter.data = parameter.data.float()
    cast(Any, layer).merge(safe_merge=True)
    # A merge may put another parameter in its place.
    types = [dtype for _, dtype in before]
    for parameter, dtype in zip(base.parameters(recurse=False), types, strict=True):
        parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def restore_quantized(model: PreTrainedModel) -> int:
    """Put a float32 layer in the place of each quantised one, with the weights that its small integers stand for.

    Returns how many there were.
    """
    found = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if not is_quantized(child):
                continue
            layer: Any = child
            weight = layer.dense_weight(torch.float32)
            plain = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)
            plain.weight = nn.Parameter(weight, requires_grad=False)
            if layer.bias is not None:
                plain.bias = nn.Parameter(layer.bias.detach().float(), requires_grad=False)
            setattr(parent, name, plain)
            found += 1
    # What transformers remembers of a quantised model would be saved with it, and refuses another type.
    whole: Any = model
    for name in ("hf_quantizer", "quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if name in vars(whole):
            delattr(whole, name)
    if "is_quantized" in vars(whole):
        whole.is_quantized = False
    if hasattr(whole.config, "quantization_config"):
        del whole.config.quantization_config
    return found
