"""Model folders of any size that take no room: a config, a tokenizer, and weights whose bytes are a hole in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from tests.folders import tokenizer_folder

LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
}
"""Llama-3.1-8B."""


def hollow_folder(folder: Path, *, config: str = "LlamaConfig", **numbers: Any) -> Path:
    """A folder that looks like a bf16 model of these sizes to whoever reads no weight."""
    tokenizer_folder(folder)
    shape = getattr(transformers, config)(**numbers, dtype="bfloat16", eos_token_id=2)
    shape.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    told: dict[str, Any] = {}
    end, seen = 0, set[int]()
    for name, tensor in model.named_parameters():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            begin, end = end, end + 2 * tensor.numel()
            told[name] = {
                "dtype": "BF16",
                "shape": list(tensor.shape),
                "data_offsets": [begin, end],
            }
    header = json.dumps(told).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return folder
