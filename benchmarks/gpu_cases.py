"""What is measured on a GPU: model shapes, rows made up by token counts, and the cases. It measures nothing.

Nothing is fetched: configs are written out here, weights are random, tokens are random ids.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LLAMA_8B: dict[str, Any] = {  # meta-llama/Llama-3.1-8B
    "config": "LlamaConfig",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
}
QWEN_8B: dict[str, Any] = {  # Qwen/Qwen3-8B
    "config": "Qwen3Config",
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": False,
}
MODELS = {"llama": LLAMA_8B, "qwen": QWEN_8B}
_SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
SHRUNK = 32  # times shorter are the rows of a smoke test


@dataclass(frozen=True)
class Case:
    """One comparison, and what it is held against."""

    name: str
    model: str
    method: str  # lora, full
    rows: str  # dense, gsm8k, agent
    batch: int  # rows of one optimizer step
    steps: int  # that are timed
    peer: bool
    """Whether TRL is measured beside it."""
    aims: tuple[tuple[str, str, float], ...]
    """(figure, what is wanted, how much at least)."""

    def as_job(self, *, small: bool) -> dict[str, Any]:
        """For a child."""
        about = asdict(self)
        if small:
            about |= {"batch": min(self.batch, 4), "steps": 2}
        return {**about, "small": small, "shape": shape_of(self.model, small=small)}


CASES = {
    case.name: case
    for case in (
        Case(
            "lora-dense-llama", "llama", "lora", "dense", 16, 8, True,
            (
                ("tokens_per_second", "8B LoRA, 4,096-token rows, tokens/s", 16_000),
                ("over_peer", "times TRL with liger and packing", 1.3),
            ),
        ),
        Case(
            "full-dense-llama", "llama", "full", "dense", 16, 5, True,
            (("utilisation", "full 8B, utilisation of the measured product", 0.5),),
        ),
        Case(
            "lora-agent-llama", "llama", "lora", "agent", 16, 6, False,
            (("over_dense", "tokens of the rows as given, times the dense figure", 2.0),),
        ),
        Case("lora-gsm8k-llama", "llama", "lora", "gsm8k", 256, 8, True, ()),
        Case(
            "lora-dense-qwen", "qwen", "lora", "dense", 16, 8, True,
            (
                ("tokens_per_second", "8B LoRA, 4,096-token rows, tokens/s", 16_000),
                ("over_peer", "times TRL with liger and packing", 1.3),
            ),
        ),
        Case(
            "full-dense-qwen", "qwen", "full", "dense", 16, 5, False,
            (("utilisation", "full 8B, utilisation of the measured product", 0.5),),
        ),
    )
}  # fmt: skip

VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "nothing compiled": {"compile": False},
    "nothing compiled, no liger kernels": {"compile": False, "kernels": "none"},
    "kernels without fixed bits": {"deterministic": False},
    "all layers recomputed": {"gradient_checkpointing": True},
    "activations offloaded": {"offload_activations": True},
}
"""Of `--case ablation`: Hone alone, on lora-dense-llama's rows."""


def shape_of(model: str, *, small: bool) -> dict[str, Any]:
    """A config's numbers."""
    shape = MODELS[model]
    return {**shape, **_SMALL, "rope_parameters": QWEN_8B["rope_parameters"]} if small else shape


Row = tuple[np.ndarray, np.ndarray]
"""Token ids int32[T] and whether each is trained bool[T]."""


def make_rows(kind: str, count: int, *, vocabulary: int, small: bool, seed: int = 0) -> list[Row]:
    """`count` rows of a kind, the same ones each time.

    `dense`: 4,096 tokens, all trained. `gsm8k`: 29 to 616 tokens, mean near 223, the second half trained.
    `agent`: one policy of 4,000 tokens at the head of each row, then turns of its own, 2,800 tokens in the mean, a
    quarter of them trained in spans.
    """
    draw = np.random.default_rng(seed)
    times = SHRUNK if small else 1

    def ids(length: int) -> np.ndarray:
        return draw.integers(0, vocabulary, length, dtype=np.int32)

    policy = ids(4000 // times)
    rows: list[Row] = []
    for _ in range(count):
        if kind == "dense":
            tokens = ids(4096 // times)
            trained = np.ones(tokens.shape[0], dtype=bool)
        elif kind == "gsm8k":
            length = int(np.clip(draw.lognormal(5.3, 0.5), 29, 616)) // min(times, 4)
            tokens = ids(max(8, length))
            trained = np.arange(tokens.shape[0]) >= tokens.shape[0] // 2
        else:
            own = ids(max(24, int(np.clip(draw.normal(2800, 900), 800, 6000)) // times))
            tokens = np.concatenate([policy, own])
            place = np.arange(tokens.shape[0]) - policy.shape[0]
            trained = (place >= 0) & (place // max(1, 60 // times) % 4 == 3)
        trained[0] = False
        trained[-1] = True
        rows.append((tokens, trained))
    return rows
