"""Adapters with random weights on tiny bases, saved as PEFT saves them: what a run leaves, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from tests.folders import model_folder

ROWS = 308
"""Tokens of the tests' tokenizer."""


def adapter_folder(
    folder: Path, base: Path, *, strength: float = 0.1, seed: int = 1, **more: Any
) -> Path:
    """An adapter for `base` whose products are not zero; `more` goes to PEFT's LoraConfig."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    options: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **more}
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                scale = strength if "lora_" in name else 0.05
                parameter.add_(torch.randn_like(parameter) * scale)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    return folder


def base_folder(folder: Path, *, dtype: torch.dtype = torch.float32, **numbers: Any) -> Path:
    """A tiny model in `dtype`."""
    model_folder(folder, **numbers)
    if dtype != torch.float32:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        model.save_pretrained(folder)
    return folder


def logits_of(model: Any, ids: torch.Tensor | None = None) -> torch.Tensor:
    """[1, T, V] float32."""
    ids = torch.tensor([[1, 50, 60, 70, 80, 90, 300, 20]]) if ids is None else ids
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits.float()


def tuned(base: Path, adapter: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The adapter on its base, as plain PEFT loads it."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    return PeftModel.from_pretrained(model, str(adapter))
