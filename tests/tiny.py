"""Tiny random models of the families that Hone trains, made in memory, and rows that force sharing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

VOCAB = 61

_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Family:
    """A family's config class and what it needs beside the common numbers."""

    config: str
    extra: dict[str, Any]

    def make(
        self, *, dtype: torch.dtype = torch.float32, seed: int = 0, **more: Any
    ) -> PreTrainedModel:
        numbers = {**_BASE, **self.extra, **more}
        numbers = {k: v for k, v in numbers.items() if v is not None}
        config = getattr(transformers, self.config)(**numbers)
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        with torch.no_grad():  # wide enough that softmax and caps are far from linear
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.2)
                else:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        return model.to(dtype).train()


FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaConfig", {}),
    "llama-tied": Family("LlamaConfig", {"tie_word_embeddings": True}),
    "mistral": Family("MistralConfig", {"sliding_window": 7}),
    "qwen2": Family("Qwen2Config", {}),
    "qwen2-window": Family(
        "Qwen2Config", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
    ),
    "qwen3": Family("Qwen3Config", {"head_dim": 16}),
    "gemma2": Family(
        "Gemma2Config",
        {
            "head_dim": 8,
            "sliding_window": 6,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 8,
        },
    ),
    "gemma3": Family(
        "Gemma3TextConfig",
        {
            "head_dim": 8,
            "sliding_window": 6,
            "query_pre_attn_scalar": 8,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "phi3": Family("Phi3Config", {}),
    "gpt2": Family(
        "GPT2Config",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 128,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "num_key_value_heads": None,
            "hidden_size": None,
            "intermediate_size": None,
            "num_hidden_layers": None,
            "num_attention_heads": None,
            "max_position_embeddings": None,
        },
    ),
    "olmo2": Family("Olmo2Config", {}),
    "gpt-neox": Family("GPTNeoXConfig", {"num_key_value_heads": None}),
    "qwen3-moe": Family(
        "Qwen3MoeConfig",
        {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "output_router_logits": False,
        },
    ),
    "mixtral": Family("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt-oss": Family(
        "GptOssConfig",
        {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6},
    ),
    "granite": Family(
        "GraniteConfig",
        {"logits_scaling": 4.0, "residual_multiplier": 0.5, "attention_multiplier": 8**-0.5},
    ),
    "cohere": Family("CohereConfig", {"logit_scale": 0.25}),
}


@dataclass(frozen=True)
class Row:
    """A row of random tokens with weights, standing in for an Example."""

    input_ids: np.ndarray
    weight: np.ndarray


def rows_with_shared_beginnings(
    seed: int, *, rows: int = 6, longest: int = 30, vocab: int = VOCAB
) -> list[Row]:
    """Rows that begin alike, part inside and outside trained spans, and repeat."""
    rng = np.random.default_rng(seed)
    made: list[Row] = []
    for _ in range(rows):
        length = int(rng.integers(2, longest))
        ids = rng.integers(3, vocab, length)
        if made and rng.random() < 0.8:
            before = made[int(rng.integers(len(made)))].input_ids
            keep = int(rng.integers(1, before.shape[0] + 1))
            ids = np.concatenate([before[:keep], ids])[: max(longest, 2)]
        if made and rng.random() < 0.15:
            ids = made[-1].input_ids.copy()
        weight = rng.choice([0.0, 0.0, 0.5, 1.0, 1.7], ids.shape[0]).astype(np.float32)
        weight[0] = 0
        if not weight.any():
            weight[-1] = 1.0
        made.append(Row(ids.astype(np.int32), weight))
    return made


def loss_row_by_row(
    model: PreTrainedModel, rows: list[Row], before: Callable[[Row], None] | None = None
) -> torch.Tensor:
    """The step's loss through the plain model, one row at a time, with its graph."""
    mass = sum(float(row.weight.sum(dtype="float64")) for row in rows)
    total = None
    for row in rows:
        if before is not None:
            before(row)
        ids = torch.from_numpy(row.input_ids.astype(np.int64))
        logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0, :-1]
        wide = logits.double() if logits.dtype == torch.float64 else logits.float()
        nll = torch.nn.functional.cross_entropy(wide, ids[1:], reduction="none")
        term = (nll * torch.from_numpy(row.weight[1:]).to(nll.dtype)).sum() / mass
        total = term if total is None else total + term
    assert total is not None
    return total


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients by parameter name; parameters that were not reached count as zero."""
    return {
        name: (torch.zeros_like(p) if p.grad is None else p.grad.detach().clone())
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def worst_gradient_error(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> float:
    """Largest |got - want| over max(|want|, 1e-3 of the global norm), parameter by parameter."""
    assert got.keys() == want.keys()
    whole = torch.sqrt(sum((g.double() ** 2).sum() for g in want.values()))
    return max(
        float(
            (got[k].double() - want[k].double()).norm() / max(want[k].double().norm(), 1e-3 * whole)
        )
        for k in want
    )
