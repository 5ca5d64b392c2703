"""What one forward pass keeps for its backward pass, in bytes a token, by part. Arithmetic only: no torch, no weights.

It follows what a family's layers and our own attention, norms and adapters save; `tests/models/test_kept.py` holds
it against what autograd is seen to save. Per-token bytes; what does not grow with the Pack is not here.

Legend: E hidden size, Q query features, K key features, I MLP features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from hone.models.shape import Shape

_INDEX: Final = 8  # bytes of one int64
_MASK: Final = 4  # of dropout, before whose layer everything is raised to float32


@dataclass(frozen=True)
class Layout:
    """How one family's layer is put together, as far as it decides what is kept."""

    norm: Literal["rms", "layer", "mean"] = "rms"
    """Our fused RMSNorm, torch's LayerNorm, or one written out in float32 (Cohere)."""
    before: bool = True
    """Norms stand before attention and MLP."""
    after: bool = False
    """Norms stand behind attention and MLP, before the residual."""
    qk_norm: bool = False
    one_projection: bool = False
    """Queries, keys and values are slices of one projection's output."""
    rotary: bool = True
    shared_norm: bool = False
    """Attention and MLP read the same normed input."""
    parallel: bool = False
    """Attention and MLP read the same residual."""
    mlp: Literal["gated", "gated-together", "plain", "written-out"] = "gated"
    """Gate and up apart or in one projection; one projection with a function that is one kernel, or several."""
    plain_linear: bool = True
    """Linear layers are torch's, so that adapters beside them are the fused ones."""


_LLAMA: Final = Layout()
_GEMMA_2: Final = Layout(after=True)
LAYOUTS: Final = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "granite": _LLAMA,
    "gemma": _LLAMA,
    "mixtral": _LLAMA,
    "gpt_oss": _LLAMA,
    "smollm3": _LLAMA,
    "qwen3": Layout(qk_norm=True),
    "qwen3_moe": Layout(qk_norm=True),
    "gemma2": _GEMMA_2,
    "gemma3_text": Layout(after=True, qk_norm=True),
    "gemma3": Layout(after=True, qk_norm=True),
    "olmo2": Layout(before=False, after=True, qk_norm=True),
    "phi3": Layout(one_projection=True, mlp="gated-together"),
    "gpt2": Layout(
        norm="layer", one_projection=True, rotary=False, mlp="written-out", plain_linear=False
    ),
    "gpt_neox": Layout(norm="layer", one_projection=True, parallel=True, mlp="plain"),
    "cohere": Layout(norm="mean", parallel=True, shared_norm=True),
}


def layout_of(shape: Shape) -> tuple[Layout, bool]:
    """The layout of a family, and whether it is known; an unknown one is taken for Llama's."""
    found = LAYOUTS.get(shape.family)
    return (found, True) if found is not None else (_LLAMA, False)


@dataclass(frozen=True)
class Arithmetic:
    """In what numbers a step is computed, and what is trained."""

    precision: Literal["fp32", "bf16"]
    trains_all: bool
    """The model's own weights train; else adapters beside frozen ones."""
    held: int
    """Bytes of a number in the residual stream."""
    rank: int = 0
    dropout: bool = False
    dora: bool = False
    adapted: frozenset[str] = frozenset()
    """Last names of the layers that have an adapter, such as `q_proj`."""
    experts_adapted: bool = False
    """Adapters stand beside experts, whose weights are then put together anew in each pass."""
    inputs_need_grad: bool = False
    """The embedding's output takes part in the backward pass, as under recomputation."""

    @property
    def narrow(self) -> int:
        """Bytes of a number in matrix products."""
        return 2 if self.precision == "bf16" else 4


@dataclass(frozen=True)
class Kept:
    """Bytes a token."""

    attention: float
    """Of one layer."""
    mlp: float
    norms: float
    residual: float
    """The residual stream between two layers: what recomputation keeps of a layer."""
    first_less: float
    """What the first layer keeps less, where nothing before it is trained."""
    outside: float
    """Outside the layers: rotary tables, the last norm."""

    @property
    def layer(self) -> float:
        """One layer."""
        return self.attention + self.mlp + self.norms


def kept(shape: Shape, how: Arithmetic) -> Kept:
    """What a token keeps under `how`."""
    layout, _ = layout_of(shape)
    norm = _norm(layout, shape.hidden, how)
    norms = 0.0
    if layout.before:
        norms += norm if layout.shared_norm else 2 * norm
        if layout.parallel and not layout.shared_norm:  # both keep one and the same residual
            norms -= shape.hidden * how.held
    if layout.after:  # they read what a product gave
        norms += 2 * (norm - shape.hidden * (how.held - how.narrow))
    frozen_start = not how.trains_all and not how.inputs_need_grad
    first_less = norm if frozen_start and layout.before else 0.0
    if frozen_start and how.dropout:  # what a mask was laid over needs no gradient there
        first_less += len(_adapted_readers(shape, layout, how)) * shape.hidden * _MASK
    return Kept(
        attention=_attention(shape, layout, how),
        mlp=_experts(shape, how) if shape.experts else _mlp(shape, layout, how),
        norms=norms,
        residual=shape.hidden * how.held,
        first_less=first_less,
        outside=norm + (2 * shape.head_size * how.held if layout.rotary else 0.0),
    )


def _norm(layout: Layout, width: int, how: Arithmetic) -> float:
    """A norm over `width` features: its input, and its statistics."""
    if layout.norm == "rms":
        return width * how.held + 4
    if layout.norm == "layer":
        return width * how.held + 8
    return width * 4 * (3 if how.trains_all else 2) + 4


def _input(
    width: int, readers: Iterable[str], how: Arithmetic, layout: Layout, *, wide: bool
) -> float:
    """The input of linear layers that read one and the same tensor; `wide`: it is of the residual's type."""
    names = list(readers)
    if how.trains_all:
        casts = len(names) if wide and how.held > how.narrow else 1
        return casts * width * how.narrow
    trained = [name for name in names if name in how.adapted]
    if how.dropout:  # each adapter: the mask, and what is left of its input
        return len(trained) * (width * (_MASK + how.narrow) + how.rank * how.narrow)
    copies = (
        len(trained)
        if how.precision == "bf16" and not layout.plain_linear
        else min(1, len(trained))
    )
    return copies * width * how.narrow + len(trained) * how.rank * how.narrow


def _attention(shape: Shape, layout: Layout, how: Arithmetic) -> float:
    query, key = shape.query, shape.key
    total = _input(shape.hidden, _readers(shape, layout), how, layout, wide=True)
    projected = query + 2 * key
    if layout.one_projection:
        total += (projected + (query + key if layout.rotary else 0)) * how.narrow
    else:
        total += projected * how.narrow
    if layout.qk_norm:
        total += (query + key) * how.narrow + 4 * (shape.heads + shape.key_heads)
    total += query * how.narrow + 4 * shape.heads  # output, log-sum-exp
    copied = how.dropout or (how.precision == "bf16" and not layout.plain_linear)
    width = query if copied and not how.trains_all else 0  # else it reads what attention keeps
    return total + _input(width, _present(shape, _READERS_OUT), how, layout, wide=False)


def _readers(shape: Shape, layout: Layout) -> list[str]:
    """The layers that read attention's input."""
    names = _READERS_ONE if layout.one_projection else ("q_proj", "k_proj", "v_proj")
    return _present(shape, names)


def _adapted_readers(shape: Shape, layout: Layout, how: Arithmetic) -> list[str]:
    return [name for name in _readers(shape, layout) if name in how.adapted]


_READERS_ONE: Final = ("qkv_proj", "c_attn", "query_key_value", "W_pack")
_READERS_OUT: Final = ("o_proj", "c_proj", "dense", "out_proj")
_READERS_UP: Final = ("gate_proj", "up_proj", "gate_up_proj", "c_fc", "dense_h_to_4h", "fc1")
_READERS_DOWN: Final = ("down_proj", "c_proj", "dense_4h_to_h", "fc2")


def _mlp(shape: Shape, layout: Layout, how: Arithmetic) -> float:
    width = shape.intermediate
    reads = _present(shape, _READERS_UP)
    between = {"gated": 3, "gated-together": 3, "plain": 1, "written-out": 4}[layout.mlp]
    if layout.shared_norm and not how.dropout:  # attention has kept that input already
        wide = len(reads) if how.trains_all and how.held > how.narrow else 0
        total = float(wide * shape.hidden * how.narrow)
        total += 0 if how.trains_all else len(reads) * how.rank * how.narrow
    else:
        total = _input(shape.hidden, reads, how, layout, wide=True)
    total += between * width * how.narrow
    return total + _input(width, _present(shape, _READERS_DOWN), how, layout, wide=False)


def _experts(shape: Shape, how: Arithmetic) -> float:
    """Experts on the tokens that were sent to them, sorted: each token goes through `experts_used` of them."""
    width, hidden = shape.intermediate, shape.hidden
    between = 6 if shape.family == "gpt_oss" else 4  # its gate is clamped and written out
    inputs = hidden if how.trains_all or how.experts_adapted else 0
    one = (between * width + hidden + inputs) * how.narrow + 3 * _INDEX + 4
    return shape.experts_used * one + 5 * shape.experts * 4


def _present(shape: Shape, names: Iterable[str]) -> list[str]:
    """Those of these layers that the model has."""
    return [name for name in names if name in shape.linear_names]
