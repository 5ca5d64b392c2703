"""A model as llama.cpp wants it: its numbers by GGUF key, and under which name and in which order each weight stands.

It reads a model's config and the headers of its weights, and writes nothing. What llama.cpp computes otherwise than
the model was trained is refused by name; keys are those of the GGUF specification (ggml, docs/gguf.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import gguf
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from hone.errors import ModelError, nearest
from hone.models.load import load_config
from hone.models.shape import Weight, read_weights

Change = Literal["as it is", "rotary pairs", "plus one"]
Value = str | int | float | bool | list[str] | list[int] | list[float] | list[bool]

_REMEDY: Final = "use another form: hone export --to safetensors, or serve it with `hone serve`"
_ARCHITECTURES: Final = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}
_WINDOWED: Final = {"gemma2": 2, "gemma3_text": 6}
"""Families whose windows llama.cpp knows, and every how many layers one of them sees everything."""
_LARGE_GEMMA: Final = {"gemma2": 46, "gemma3_text": 62}
"""Layers of the one size of a family whose attention is scaled by another number."""
_YARN_SAYS_MORE: Final = (
    "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
)  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One weight: its name in the model's files, its name in GGUF, and what is done to its rows."""

    source: Weight
    name: str
    change: Change = "as it is"
    heads: int = 1
    """Heads whose rotary pairs are put beside each other."""


@dataclass(frozen=True)
class Layout:
    """What a GGUF file says of a model beside its tokenizer."""

    architecture: str
    fields: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    frequencies: tuple[float, ...]
    """By what each rotary frequency is divided (Llama 3's scaling); empty where by nothing."""
    rows: int
    """Rows of the embeddings."""
    notices: tuple[str, ...]


def read_layout(folder: Path) -> Layout:
    """The layout of a model folder. Raises ModelError for a family or a setting that llama.cpp does not compute so."""
    config = load_config(folder)
    family = str(config.model_type)
    if family not in _ARCHITECTURES:
        raise ModelError(
            f"models of the kind {family!r} are not written as GGUF here",
            where=str(folder),
            remedy=f"{nearest(family, _ARCHITECTURES)}; or {_REMEDY}",
        )
    _refuse_other_arithmetic(config, family, folder)
    arch = _ARCHITECTURES[family]
    name = gguf.MODEL_ARCH_NAMES[arch]
    weights = read_weights(folder)
    tied = bool(config.tie_word_embeddings)
    notices: list[str] = []
    fields = {f"{name}.{key}": value for key, value in _numbers(config, family, notices).items()}
    frequencies = _rotary(config, family, name, fields, folder)
    layers = int(config.num_hidden_layers)
    names = gguf.get_tensor_name_map(arch, layers)
    tensors = tuple(
        _tensor(one, names, config, family, folder)
        for one in weights
        if not (one.name == "lm_head.weight" and tied)
    )
    if family.startswith("gemma") and not tied:
        raise _refusal("its head is not its embeddings (tie_word_embeddings: false)", folder)
    rows = next(one.source.shape[0] for one in tensors if one.name == "token_embd.weight")
    fields[f"{name}.vocab_size"] = rows
    return Layout(name, fields, tensors, frequencies, rows, tuple(notices))


def _refusal(why: str, folder: Path) -> ModelError:
    return ModelError(
        f"llama.cpp does not compute this model as it was trained: {why}",
        where=str(folder / "config.json"),
        remedy=_REMEDY,
    )


def _refuse_other_arithmetic(config: Any, family: str, folder: Path) -> None:
    """What a config may ask for and llama.cpp's graph of the family does not have."""
    gemma = family.startswith("gemma")
    said = (getattr(config, "hidden_activation", None) if gemma else None) or config.hidden_act
    allowed = ("gelu_pytorch_tanh", "gelu_new") if gemma else ("silu", "swish")
    if said not in allowed and not (family == "gemma" and said == "gelu"):
        raise _refusal(f"activation {said}", folder)
    if float(getattr(config, "partial_rotary_factor", None) or 1.0) != 1.0:
        raise _refusal("partial_rotary_factor", folder)
    if getattr(config, "use_bidirectional_attention", False):
        raise _refusal("use_bidirectional_attention", folder)
    if family in _WINDOWED:
        large = config.num_hidden_layers == _LARGE_GEMMA[family]
        per_head = config.hidden_size / config.num_attention_heads
        wanted = per_head if large else config.head_dim
        if float(config.query_pre_attn_scalar) != float(wanted):
            raise _refusal(
                f"query_pre_attn_scalar {config.query_pre_attn_scalar}, where llama.cpp takes {wanted:g}",
                folder,
            )
    caps = getattr(config, "attn_logit_softcapping", None)
    if family == "gemma2" and not (caps and config.final_logit_softcapping):
        raise _refusal("no soft caps, which llama.cpp always has in Gemma 2", folder)
    if family == "gemma3_text" and caps:
        raise _refusal("attn_logit_softcapping", folder)


def _numbers(config: Any, family: str, notices: list[str]) -> dict[str, Value]:
    """The model's numbers, without the architecture before each key."""
    head_size = _head_size(config)
    numbers: dict[str, Value] = {
        "context_length": int(config.max_position_embeddings),
        "embedding_length": int(config.hidden_size),
        "block_count": int(config.num_hidden_layers),
        "feed_forward_length": int(config.intermediate_size),
        "attention.head_count": int(config.num_attention_heads),
        "attention.head_count_kv": int(config.num_key_value_heads),
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "attention.key_length": head_size,
        "attention.value_length": head_size,
        "rope.dimension_count": head_size,
    }
    kinds = cast("list[str]", getattr(config, "layer_types", None) or [])
    window = cast("int | None", getattr(config, "sliding_window", None))
    if family in _WINDOWED:
        every = _WINDOWED[family]
        sliding = [kind == "sliding_attention" for kind in kinds]
        numbers["attention.sliding_window"] = int(window or 0)
        if sliding != [i % every < every - 1 for i in range(len(sliding))]:
            numbers["attention.sliding_window_pattern"] = sliding
    elif window and _slides(config, kinds) and window < config.max_position_embeddings:
        numbers["context_length"] = int(window)
        notices.append(
            f"llama.cpp has no attention window for this family: the longest text is written as {window:,} tokens, "
            "within which the window changes nothing"
        )
    for key, ours in (
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
    ):
        if getattr(config, ours, None):
            numbers[key] = float(getattr(config, ours))
    return numbers


def _slides(config: Any, kinds: list[str]) -> bool:
    """Whether any layer has the window: Qwen's config names one that is switched off."""
    if kinds:
        return "sliding_attention" in kinds
    return bool(getattr(config, "use_sliding_window", True))


def _head_size(config: Any) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _rotary(
    config: Any, family: str, name: str, fields: dict[str, Value], folder: Path
) -> tuple[float, ...]:
    """Add the rotary settings to `fields`; returns what Llama 3's scaling divides each frequency by."""
    said = cast("dict[str, Any]", config.rope_parameters)
    rope = cast("dict[str, Any]", said.get("full_attention", said))
    fields[f"{name}.rope.freq_base"] = float(rope["rope_theta"])
    local = cast("dict[str, Any]", said.get("sliding_attention") or {})
    if local:
        if local.get("rope_type", "default") != "default":
            raise _refusal(f"rotary scaling {local['rope_type']} of windowed layers", folder)
        fields[f"{name}.rope.freq_base_swa"] = float(local["rope_theta"])
    kind = str(rope.get("rope_type", "default"))
    if kind == "default":
        return ()
    if kind == "linear" or (kind == "yarn" and not any(rope.get(key) for key in _YARN_SAYS_MORE)):
        fields[f"{name}.rope.scaling.type"] = kind
        fields[f"{name}.rope.scaling.factor"] = float(rope["factor"])
        if kind == "yarn":
            original = int(rope["original_max_position_embeddings"])
            fields[f"{name}.rope.scaling.original_context_length"] = original
        return ()
    if kind == "llama3" and family == "llama":
        base = float(rope["rope_theta"])
        size = _head_size(config)
        found, _ = ROPE_INIT_FUNCTIONS["llama3"](config, cast(Any, "cpu"))
        scaled = cast("list[float]", found.tolist())
        plain = [base ** (-2.0 * i / size) for i in range(size // 2)]
        return tuple(one / other for one, other in zip(plain, scaled, strict=True))
    raise _refusal(f"rotary scaling {kind}", folder)


def _tensor(
    weight: Weight, names: gguf.TensorNameMap, config: Any, family: str, folder: Path
) -> Tensor:
    found = names.get_name(weight.name, try_suffixes=(".weight", ".bias"))
    if found is None or weight.dtype not in ("F32", "F16", "BF16"):
        why = f"the weight {weight.name} ({weight.dtype}) has no place there"
        raise _refusal(why, folder)
    pairs = re.search(r"\.([qk])_proj\.(?:weight|bias)$", weight.name)
    if pairs and family in ("llama", "mistral"):
        own = config.num_attention_heads if pairs[1] == "q" else config.num_key_value_heads
        return Tensor(weight, found, "rotary pairs", int(own))
    if family.startswith("gemma") and weight.name.endswith("norm.weight"):
        return Tensor(weight, found, "plus one")
    return Tensor(weight, found)
