"""Attention of many conversations in one call, each over its own past and no other's. It knows no model.

It is registered with transformers' attention and mask interfaces under `NAME`, and receives the rows of a step as
the keyword argument `ARGUMENT` of the model's forward. Tokens come as [N, 1]: each is a batch row of its own.

Legend: N tokens of a step, B of them in rows that write, H query heads, G key heads (R = H / G), D head size,
t tokens of one prompt, L tokens of past.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from hone.infer.kv import Slots

NAME = "hone_rows"
ARGUMENT = "rows_now"


def register() -> None:
    """Make `attn_implementation=NAME` known to transformers; calling it again changes nothing."""
    AttentionInterface.register(NAME, row_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: object, **__: object) -> None:
    """What is visible comes with the rows."""


@dataclass(frozen=True)
class Span:
    """Tokens of one prompt: `first` is their place in the step, `start` their place in the conversation."""

    slot: int
    first: int
    start: int
    count: int


@dataclass
class RowsNow:
    """The rows of one step: one token each of those that write, then spans of prompts."""

    slots: Slots
    writing: Sequence[int]
    """Slots of the rows that write; their tokens are the first of the step."""
    places: Sequence[int]
    """Where in its conversation each of these tokens stands."""
    spans: Sequence[Span]
    device: torch.device
    _kept: dict[int | None, Tensor] = field(default_factory=dict[int | None, Tensor])

    def __post_init__(self) -> None:
        self.slot_of = torch.tensor(self.writing, device=self.device)
        self.place_of = torch.tensor(self.places, device=self.device)
        self.longest = max(self.places, default=-1) + 1
        self.is_dense = list(self.writing) == list(range(len(self.writing)))

    def seen(self, window: int | None) -> Tensor:
        """Which of the past each writing row sees, [B, 1, L]."""
        if window not in self._kept:
            past = torch.arange(self.longest, device=self.device)
            here = self.place_of[:, None]
            seen = past <= here
            if window is not None:
                seen &= here - past < window
            self._kept[window] = seen[:, None]
        return self._kept[window]


def row_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Remember the keys and values of a step, and attend with its queries.

    `query` is [N, H, 1, D], `key` and `value` [N, G, 1, D]; returns [N, 1, H, D]. Raises RuntimeError where no rows
    arrive, where a mask does, or where dropout is asked for: each would be wrong silently.
    """
    now = others.get(ARGUMENT)
    if not isinstance(now, RowsNow):
        raise RuntimeError(f"attention {NAME!r} was called without {ARGUMENT}=")
    if attention_mask is not None or dropout != 0.0:
        raise RuntimeError(f"attention {NAME!r} takes no mask and no dropout")
    index: Any = module.layer_idx
    keys, values = now.slots.layer(int(index), key, value)
    scale = scaling if scaling is not None else 1.0 / math.sqrt(query.shape[-1])
    tokens, heads = query.shape[:2]
    out = value.new_empty((tokens, 1, heads, value.shape[-1]))
    count = len(now.writing)
    if count:
        keys[now.slot_of, :, now.place_of] = key[:count, :, 0]
        values[now.slot_of, :, now.place_of] = value[:count, :, 0]
        which = slice(count) if now.is_dense else now.slot_of
        past = keys[which][:, :, : now.longest], values[which][:, :, : now.longest]
        seen = now.seen(sliding_window)
        out[:count, 0] = _attend(query[:count], *past, seen, scale, softcap, s_aux)[:, 0]
    for span in now.spans:
        here, end = slice(span.first, span.first + span.count), span.start + span.count
        keys[span.slot, :, span.start : end] = key[here, :, 0].transpose(0, 1)
        values[span.slot, :, span.start : end] = value[here, :, 0].transpose(0, 1)
        low = 0 if sliding_window is None else max(0, span.start - sliding_window + 1)
        past = keys[None, span.slot, :, low:end], values[None, span.slot, :, low:end]
        seen = _span_seen(span, low, sliding_window, query.device)
        asked = query[here, :, 0].transpose(0, 1)[None]
        out[here, 0] = _attend(asked, *past, seen, scale, softcap, s_aux)[0]
    return out, None


def _span_seen(span: Span, low: int, window: int | None, device: torch.device) -> Tensor:
    """Which of the past from `low` on each token of a prompt sees, [1, t, L]."""
    here = torch.arange(span.start, span.start + span.count, device=device)[:, None]
    past = torch.arange(low, span.start + span.count, device=device)
    seen = past <= here
    if window is not None:
        seen &= here - past < window
    return seen[None]


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """`query` [b, H, t, D] over `key`, `value` [b, G, L, D] where `seen` [b, t, L]; returns [b, t, H, D].

    The heads that share a key head are queries of one matrix product, so that no key is copied.
    """
    rows, heads, asked, size = query.shape
    groups = key.shape[1]
    share = heads // groups
    folded = query.reshape(rows, groups, share * asked, size)
    scores = (folded @ key.transpose(-1, -2)).float().mul_(scale)
    scores = scores.view(rows, groups, share, asked, -1)
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    scores.masked_fill_(~seen[:, None, None], -math.inf)
    if sinks is None:
        weights = torch.softmax(scores, dim=-1)
    else:  # a sink is one more key whose value is zero
        sink = sinks.float().view(1, groups, share, 1, 1)
        top = torch.maximum(scores.amax(dim=-1, keepdim=True), sink)
        raised = torch.exp(scores - top)
        weights = raised / (raised.sum(dim=-1, keepdim=True) + torch.exp(sink - top))
    flat = weights.to(value.dtype).view(rows, groups, share * asked, -1)
    found = (flat @ value).view(rows, heads, asked, -1)
    return found.transpose(1, 2)
