"""The shape of a model as its files tell it: sizes from config.json, every weight from the safetensors headers.

No torch, and no weight is read. It knows nothing of training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final, cast

from hone.errors import ModelError
from hone.models import facts
from hone.models.source import weight_files

PARTS: Final[tuple[str, ...]] = ("embedding", "attention", "mlp", "norms", "head", "other")
"""What the parameters of a model are counted under."""

_BYTES: Final = {
    "F64": 8.0, "F32": 4.0, "F16": 2.0, "BF16": 2.0, "I64": 8.0, "I32": 4.0, "I16": 2.0, "I8": 1.0,
    "U8": 1.0, "BOOL": 1.0, "F8_E4M3": 1.0, "F8_E5M2": 1.0,
}  # fmt: skip
_LARGEST_HEADER: Final = 100_000_000  # bytes: safetensors' own limit
_EMBEDDING: Final = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|wpe|embed_in|word_embeddings|embed_positions|tok_embeddings)\."
)
_HEAD: Final = re.compile(r"(?:^|\.)(?:lm_head|embed_out)\.")
_EXPERTS: Final = re.compile(r"\.experts?\.")
_ROUTER: Final = re.compile(r"\.router\.")
_MLP: Final = re.compile(r"\.(?:mlp|feed_forward|block_sparse_moe|ffn|experts?)\.|\.(?:fc1|fc2)\.")
_ATTENTION: Final = re.compile(r"\.(?:self_attn|attn|attention|self_attention)\.")
_LAYER: Final = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Weight:
    """One tensor of the files."""

    name: str
    shape: tuple[int, ...]
    num_bytes: int
    dtype: str
    """As safetensors writes it: `F32`, `BF16`."""

    @property
    def layer(self) -> int | None:
        """The decoder layer that it belongs to, from 0."""
        found = _LAYER.search(f".{self.name}")
        return None if found is None else int(found[1])

    @property
    def count(self) -> int:
        """Numbers in it."""
        return prod(self.shape)

    @property
    def part(self) -> str:
        """Which of `PARTS` it belongs to."""
        if _EMBEDDING.search(self.name):
            return "embedding"
        if _HEAD.search(self.name):
            return "head"
        if _is_norm(self):
            return "norms"
        if _MLP.search(self.name):
            return "mlp"
        return "attention" if _ATTENTION.search(self.name) else "other"

    @property
    def is_linear(self) -> bool:
        """Whether it is the matrix of a linear layer of the body: what an adapter can stand beside."""
        return (
            self.name.endswith(".weight")
            and len(self.shape) == 2
            and self.part in ("attention", "mlp", "other")
            and not _EXPERTS.search(self.name)
            and not _ROUTER.search(self.name)
        )

    @property
    def module(self) -> str:
        """The layer's dotted name."""
        return self.name.removesuffix(".weight")


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder, by the names that papers use."""

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    """Whether the head's matrix is the embedding's."""
    experts: int
    """Experts a layer; 0 where the MLP is one piece."""
    experts_used: int
    window: int | None
    softcap: bool
    """Whether attention scores are capped."""
    head_cap: bool
    activation: str
    weights: tuple[Weight, ...]

    @property
    def query(self) -> int:
        """Features of all query heads together."""
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        """Features of all key heads together."""
        return self.key_heads * self.head_size

    @property
    def parameters(self) -> int:
        """Numbers in all weights, a tied one counted once."""
        return sum(weight.count for weight in self.weights)

    @property
    def file_bytes(self) -> int:
        """Bytes of the weights as they are stored."""
        return sum(weight.num_bytes for weight in self.weights)

    @cached_property
    def stored(self) -> str:
        """The type in which most numbers are stored, as safetensors writes it."""
        counts: dict[str, int] = {}
        for weight in self.weights:
            counts[weight.dtype] = counts.get(weight.dtype, 0) + weight.count
        return max(counts, key=lambda name: counts[name], default="F32")

    def by_part(self) -> dict[str, int]:
        """Parameters under each of `PARTS`."""
        found: dict[str, int] = dict.fromkeys(PARTS, 0)
        for weight in self.weights:
            found[weight.part] += weight.count
        return found

    def adapted(self, targets: str | Iterable[str]) -> tuple[Weight, ...]:
        """The linear layers beside which adapters stand: `all-linear`, names, or one regular expression, as
        PEFT reads them."""
        layers = [weight for weight in self.weights if weight.is_linear]
        if targets == "all-linear":
            return tuple(layers)
        if isinstance(targets, str):
            matches = re.compile(targets).fullmatch
            return tuple(w for w in layers if matches(w.module) or matches(f"model.{w.module}"))
        ends = tuple(targets)
        return tuple(
            w
            for w in layers
            if any(w.module == end or w.module.endswith(f".{end}") for end in ends)
        )

    @cached_property
    def expert_parameters(self) -> int:
        """Numbers in the weights of all experts."""
        return sum(w.count for w in self.weights if _EXPERTS.search(w.name))

    @property
    def experts_apart(self) -> bool:
        """Whether the files hold each expert's matrices by themselves; adapters then stand beside experts too."""
        return any(
            _EXPERTS.search(w.name) and len(w.shape) == 2 and ".weight" in w.name
            for w in self.weights
        )

    @cached_property
    def linear_names(self) -> frozenset[str]:
        """Last names of the linear layers, such as `q_proj`."""
        return frozenset(w.module.rpartition(".")[2] for w in self.weights if w.is_linear)

    @property
    def matrix_parameters(self) -> int:
        """Parameters that multiply every token of the body: linear layers, of experts those that are used."""
        total = 0
        for weight in self.weights:
            if weight.part not in ("attention", "mlp", "other") or len(weight.shape) < 2:
                continue
            share = 1.0
            if self.experts and _EXPERTS.search(weight.name):
                share = self.experts_used / self.experts
            total += round(weight.count * share)
        return total


def read_shape(folder: Path, config: dict[str, Any]) -> Shape:
    """The shape of the model in `folder`, whose config.json says `config`. Raises ModelError."""
    flat = facts.text_config(config)
    hidden = _first(flat, ("hidden_size", "n_embd", "d_model"))
    heads = _first(flat, ("num_attention_heads", "n_head", "n_heads", "num_heads")) or 1
    layers = _first(flat, ("num_hidden_layers", "n_layer", "n_layers", "num_layers"))
    if not (hidden and layers):
        raise ModelError(
            "config.json does not say how many layers and features the model has",
            where=str(folder / "config.json"),
            remedy="use a causal language model of transformers",
        )
    weights = tuple(read_weights(folder))
    experts = _first(flat, ("num_experts", "num_local_experts", "n_routed_experts")) or 0
    wide = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    inner = (_first(flat, ("moe_intermediate_size",)) if experts else None) or _first(flat, wide)
    caps = {key for key in ("attn_logit_softcapping", "final_logit_softcapping") if flat.get(key)}
    return Shape(
        family=str(flat.get("model_type", "")),
        layers=layers,
        hidden=hidden,
        intermediate=inner or 4 * hidden,
        heads=heads,
        key_heads=_first(flat, ("num_key_value_heads", "num_kv_heads", "n_head_kv")) or heads,
        head_size=_first(flat, ("head_dim",)) or hidden // heads,
        vocabulary=_first(flat, ("vocab_size",)) or 0,
        tied=not any(weight.part == "head" for weight in weights),
        experts=experts,
        experts_used=_first(flat, ("num_experts_per_tok", "moe_topk")) or 0,
        window=_first(flat, ("sliding_window",)),
        softcap="attn_logit_softcapping" in caps,
        head_cap="final_logit_softcapping" in caps,
        activation=str(
            flat.get("hidden_act")
            or flat.get("activation_function")
            or flat.get("hidden_activation")
        ),
        weights=weights,
    )


def read_weights(folder: Path) -> list[Weight]:
    """Every tensor that the safetensors files of a model name. Raises ModelError."""
    found = [weight for path in weight_files(folder) for weight in read_weights_of(path)]
    return sorted(found, key=lambda weight: weight.name)


def read_weights_of(path: Path) -> list[Weight]:
    """Every tensor that one safetensors file names. Raises ModelError."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _LARGEST_HEADER:
                raise ValueError("no header is so large")
            header = cast("dict[str, Any]", json.loads(file.read(size)))
        found: list[Weight] = []
        for name, told in header.items():
            if name != "__metadata__":
                shape, dtype = tuple(int(n) for n in told["shape"]), str(told["dtype"])
                size_ = round(prod(shape) * _BYTES.get(dtype, 4.0))
                found.append(Weight(name, shape, size_, dtype))
        return found
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"not a safetensors file: {path}", remedy="fetch it again") from error


def _is_norm(weight: Weight) -> bool:
    return len(weight.shape) == 1 and bool(re.search(r"norm|\.ln_|\.ln\d", weight.name))


def _first(config: Mapping[str, Any], names: Iterable[str]) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
