"""A model of a given shape with random weights, made on the device itself. It knows no trainer."""

from __future__ import annotations

from typing import Any


def make(shape: dict[str, Any], device: Any, *, dtype: str) -> Any:
    """The model; no file is read or written."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM

    numbers = {key: value for key, value in shape.items() if key != "config"}
    config = getattr(transformers, shape["config"])(
        **numbers, bos_token_id=None, eos_token_id=None, pad_token_id=None
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    assert next(model.parameters()).device.type == torch.device(device).type
    return model
