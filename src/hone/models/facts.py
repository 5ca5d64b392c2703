"""What a model's config says about how its rows may be computed. No torch, no weights.

The rules come from trials of many families; what they do not know, the probe on the real weights finds.
"""

from __future__ import annotations

from typing import Any, cast

_SHAREABLE_LAYERS = {"full_attention", "sliding_attention", "attention"}
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_RECURRENT_KEYS = ("mamba_d_state", "ssm_state_size", "linear_num_value_heads", "conv_L_cache")
_RECURRENT_TYPES = {"mamba", "mamba2", "falcon_mamba", "rwkv", "recurrent_gemma", "xlstm", "lfm2"}


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of `config` that describes the language model."""
    inner = config.get("text_config")
    return {**config, **cast("dict[str, Any]", inner)} if isinstance(inner, dict) else config


def longest_row(config: dict[str, Any]) -> int | None:
    """Most tokens that the model takes in one row, or None where its config does not say."""
    flat = text_config(config)
    for key in _LENGTHS:
        value = flat.get(key)
        if isinstance(value, int) and value > 0:
            return value
    return None


def dropouts(config: dict[str, Any]) -> dict[str, float]:
    """Settings of the base that would draw noise in training, by key."""
    return {
        key: float(value)
        for key, value in text_config(config).items()
        if ("dropout" in key or key.endswith(("pdrop", "_drop")))
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and value > 0
    }


def depends_on_longest(config: dict[str, Any]) -> bool:
    """Whether how rows are run depends on the longest of them."""
    said: object = text_config(config).get("rope_parameters") or text_config(config).get(
        "rope_scaling"
    )
    rope = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    return (rope.get("rope_type") or rope.get("type")) == "longrope"


def why_rows_run_alone(config: dict[str, Any], *, longest: int) -> str | None:
    """Why rows of this model cannot stand in one Pack, or None where no rule speaks against it.

    `longest` is the longest row of the data, in tokens.
    """
    flat = text_config(config)
    kinds = set(flat.get("layer_types") or ()) - _SHAREABLE_LAYERS
    if kinds:
        return f"it has layers of the kind {', '.join(sorted(kinds))}"
    if flat.get("attention_chunk_size"):
        return "its attention is chunked by place"
    if flat.get("model_type") in _RECURRENT_TYPES or any(flat.get(k) for k in _RECURRENT_KEYS):
        return "it is recurrent: its state runs through the whole row"
    said: object = flat.get("rope_parameters") or flat.get("rope_scaling")
    rope = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    kind = rope.get("rope_type") or rope.get("type")
    if kind == "dynamic":
        return "its rotary scaling follows the longest row of a call (dynamic)"
    if kind == "longrope":
        threshold = rope.get("original_max_position_embeddings") or flat.get(
            "original_max_position_embeddings"
        )
        if threshold and longest > int(threshold):
            return f"its rotary scaling (longrope) changes beyond {threshold} tokens"
    return None
