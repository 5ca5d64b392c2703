"""Attention over a Pack on a CPU: one flash call per node of the prefix tree, merged by log-sum-exp.

It is registered with transformers' attention and mask interfaces under `NAME` and receives the Pack's
tiles as the keyword argument `pack` of the model's forward. It knows no model and no rows.

Legend: H query heads, G key heads (G divides H), T tokens, D head size.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from hone.models.visible import Tile, Tiles, Visible

NAME = "hone_pack"
ARGUMENT = "pack_visible"

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def register() -> None:
    """Make `attn_implementation=NAME` known to transformers; calling it again changes nothing."""
    AttentionInterface.register(NAME, pack_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: object, **__: object) -> None:
    """What is visible comes with the Pack; a T x T mask is never built."""


def pack_attention(
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
    """Attend within the rows of a Pack.

    `query` is [1, H, T, D], `key` and `value` [1, G, T, D]; returns [1, T, H, D]. `sliding_window`,
    `softcap` (Gemma 2) and `s_aux` (sink logits, one per head) arrive per layer. In the last layer, queries
    that nothing reads get zeros (`hone.models.visible`). Raises RuntimeError
    where no Pack arrives, where a mask does, or where dropout is asked for: each would be wrong silently.
    """
    visible = others.get(ARGUMENT)
    if not isinstance(visible, Visible):
        raise RuntimeError(f"attention {NAME!r} was called without {ARGUMENT}=")
    if attention_mask is not None or dropout != 0.0:
        raise RuntimeError(f"attention {NAME!r} takes no mask and no dropout")
    scale = scaling if scaling is not None else 1.0 / math.sqrt(query.shape[-1])
    tiles = visible.tiles(sliding_window, getattr(module, "layer_idx", None))
    query, key, value = (t.to(value.dtype) for t in (query, key, value))  # autocast leaves a mix
    wide, narrow = query.shape[-1], value.shape[-1]
    if narrow < wide:  # latent attention: values are narrower than keys; zeros change nothing
        value = torch.nn.functional.pad(value, (0, wide - narrow))
    if softcap is not None:
        out = cast(Tensor, _CappedAttention.apply(query, key, value, tiles, scale, softcap))
        if s_aux is not None:
            raise RuntimeError(f"attention {NAME!r} has no soft cap together with sinks")
    else:
        out = cast(Tensor, _FlashAttention.apply(query, key, value, s_aux, tiles, scale))
    return out[..., :narrow], None


def _mask_of(tile: Tile, like: Tensor) -> Tensor | None:
    if tile.keep is None:
        return None
    mask = torch.zeros(tile.keep.shape, dtype=like.dtype)
    return mask.masked_fill_(~tile.keep, -math.inf)[None, None]


class _Merge:
    """Partial results of a softmax over disjoint sets of keys, merged as they come.

    `out` [1, T, H, D] and `lse` [1, H, T]; out = sum_s exp(lse_s - lse) out_s with
    lse = log sum_s exp(lse_s) (Milakov and Gimelshein, 2018).
    """

    def __init__(self, query: Tensor, tiles: Tiles) -> None:
        _, heads, tokens, size = query.shape
        merges = any(tile.q0 >= tile.k1 or tile.keep is not None for tile in tiles.calls)
        dtype = query.dtype if query.dtype == torch.float64 or not merges else torch.float32
        self.out = query.new_empty((1, tokens, heads, size), dtype=dtype)
        sums = torch.float64 if query.dtype == torch.float64 else torch.float32
        self.lse = query.new_empty((1, heads, tokens), dtype=sums)
        if not tiles.covers_all:
            self.out.zero_()
            self.lse.zero_()
        self._seen_until = 0

    def add(self, tile: Tile, out: Tensor, lse: Tensor) -> None:
        """Take `out` [1, H, q, D] and `lse` [1, H, q] of one tile's queries.

        Tiles come depth first, so those of a query's first tile form one range that grows: a query
        at or beyond `_seen_until` has no result yet.
        """
        fresh = max(tile.q0, min(tile.q1, self._seen_until))
        if fresh > tile.q0:
            self._merge(tile.q0, fresh, out[:, :, : fresh - tile.q0], lse[:, :, : fresh - tile.q0])
        if fresh < tile.q1:
            self.out[:, fresh : tile.q1] = out[:, :, fresh - tile.q0 :].transpose(1, 2)
            self.lse[:, :, fresh : tile.q1] = lse[:, :, fresh - tile.q0 :]
            self._seen_until = tile.q1

    def _merge(self, q0: int, q1: int, out: Tensor, lse: Tensor) -> None:
        before_out, before = self.out[:, q0:q1], self.lse[:, :, q0:q1]
        total = torch.logaddexp(before, lse)
        before_out.mul_(torch.exp(before - total).transpose(1, 2).unsqueeze(-1))
        before_out.add_(out.transpose(1, 2) * torch.exp(lse - total).transpose(1, 2).unsqueeze(-1))
        before.copy_(total)


class _FlashAttention(torch.autograd.Function):
    """Tiles through the flash kernel; backward with the merged output and log-sum-exp.

    The gradient of a tile depends on the other tiles only through these two (Dao et al., 2022, section
    3.1), so the same kernel gives it exactly. Differentiating the merge itself would be wrong: the
    kernel's log-sum-exp carries no gradient.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
        tiles: Tiles,
        scale: float,
    ) -> Tensor:
        merged = _Merge(query, tiles)
        for tile in tiles.calls:
            out, lse = _flash(
                query[:, :, tile.q0 : tile.q1],
                key[:, :, tile.k0 : tile.k1],
                value[:, :, tile.k0 : tile.k1],
                0.0,
                tile.causal,
                attn_mask=_mask_of(tile, query),
                scale=scale,
            )
            if tile.keep is not None:  # the kernel says 0 for a query that sees no key
                lse = lse.masked_fill(~tile.keep.any(dim=1), -math.inf)
            merged.add(tile, out, lse)
        out, lse = merged.out, merged.lse
        if sinks is not None:
            total = torch.logaddexp(lse, sinks.to(lse.dtype)[None, :, None])
            out = out * torch.exp(lse - total).transpose(1, 2).unsqueeze(-1)
            lse = total
        out = out.to(query.dtype)
        ctx.tiles, ctx.scale = tiles, scale
        ctx.save_for_backward(query, key, value, sinks, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, sinks, out, lse = ctx.saved_tensors
        dtype = query.dtype
        if (
            dtype == torch.bfloat16
        ):  # the kernel's bfloat16 backward is 2.3 times slower than float32's
            query, key, value, out = (t.float() for t in (query, key, value, out))
        grad_heads = grads[0].to(query.dtype).transpose(1, 2)
        out_heads = out.transpose(1, 2)
        sums = _Sums(query, key, value, ctx.tiles)
        for tile in ctx.tiles.calls:
            rows, columns = slice(tile.q0, tile.q1), slice(tile.k0, tile.k1)
            sums.add(
                tile,
                _flash_backward(
                    grad_heads[:, :, rows],
                    query[:, :, rows],
                    key[:, :, columns],
                    value[:, :, columns],
                    out_heads[:, :, rows],
                    lse[:, :, rows],
                    0.0,
                    tile.causal,
                    attn_mask=_mask_of(tile, query),
                    scale=ctx.scale,
                ),
            )
        grad_sinks = None
        if sinks is not None:  # a sink is one more key whose value is zero
            delta = (grads[0].to(lse.dtype) * out.to(lse.dtype)).sum(-1).transpose(1, 2)
            share = torch.exp(sinks.to(lse.dtype)[None, :, None] - lse)
            grad_sinks = -(share * delta).sum(dim=(0, 2)).to(sinks.dtype)
        return (*sums.cast(dtype), grad_sinks, None, None)


class _Sums:
    """Gradients of query, key and value, added up over tiles (in float32 at least)."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, tiles: Tiles) -> None:
        alone = tiles.covers_all and all(tile.causal for tile in tiles.calls)
        dtype = query.dtype if alone or query.dtype == torch.float64 else torch.float32
        self._grads = tuple(
            (torch.empty_like if alone else torch.zeros_like)(t, dtype=dtype)
            for t in (query, key, value)
        )
        self._alone = alone

    def add(self, tile: Tile, parts: tuple[Tensor, Tensor, Tensor]) -> None:
        ranges = ((tile.q0, tile.q1), (tile.k0, tile.k1), (tile.k0, tile.k1))
        for grad, part, (low, high) in zip(self._grads, parts, ranges, strict=True):
            if self._alone:
                grad[:, :, low:high] = part
            else:
                grad[:, :, low:high] += part

    def cast(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return tuple(grad.to(dtype) for grad in self._grads)


class _CappedAttention(torch.autograd.Function):
    """Tiles with scores `cap * tanh(score / cap)` (Gemma 2), in plain matrix products.

    Same merge and same backward rule as the flash path; scores of one tile exist at a time.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        tiles: Tiles,
        scale: float,
        cap: float,
    ) -> Tensor:
        pieces = tuple(piece for tile in tiles.calls for piece in _blocks(tile))
        tiles = Tiles(pieces, covers_all=tiles.covers_all)
        merged = _Merge(query, tiles)
        for tile in tiles.calls:
            scores, _ = _capped_scores(query, key, tile, scale, cap)
            lse = torch.logsumexp(scores, dim=-1)
            weights = torch.exp(scores - lse.masked_fill(lse == -math.inf, 0.0).unsqueeze(-1))
            out = _grouped(weights, value[:, :, tile.k0 : tile.k1].to(weights.dtype))
            merged.add(tile, out, lse)
        out, lse = merged.out.to(query.dtype), merged.lse
        ctx.tiles, ctx.scale, ctx.cap = tiles, scale, cap
        ctx.save_for_backward(query, key, value, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, out, lse = ctx.saved_tensors
        wide = lse.dtype
        grad_heads = grads[0].transpose(1, 2).to(wide)
        delta = (grad_heads * out.transpose(1, 2).to(wide)).sum(-1, keepdim=True)
        into = [torch.zeros_like(t, dtype=wide) for t in (query, key, value)]
        groups = key.shape[1]
        for tile in ctx.tiles.calls:
            rows, columns = slice(tile.q0, tile.q1), slice(tile.k0, tile.k1)
            scores, slope = _capped_scores(query, key, tile, ctx.scale, ctx.cap)
            weights = torch.exp(scores - lse[:, :, rows].unsqueeze(-1))
            grad = grad_heads[:, :, rows]
            into[2][:, :, columns] += _fold(weights.transpose(-1, -2) @ grad, groups)
            into_weights = _grouped(grad, value[:, :, columns].to(wide).transpose(-1, -2))
            into_scores = weights * (into_weights - delta[:, :, rows]) * slope * ctx.scale
            into[0][:, :, rows] += _grouped(into_scores, key[:, :, columns].to(wide))
            pulled = into_scores.transpose(-1, -2) @ query[:, :, rows].to(wide)
            into[1][:, :, columns] += _fold(pulled, groups)
        return (*(grad.to(query.dtype) for grad in into), None, None, None)


def _blocks(tile: Tile, size: int = 512) -> list[Tile]:
    """Cut a tile by queries, so that its scores stay small; a causal one gets explicit masks."""
    pieces: list[Tile] = []
    for q0 in range(tile.q0, tile.q1, size):
        q1 = min(tile.q1, q0 + size)
        keep = None if tile.keep is None else tile.keep[q0 - tile.q0 : q1 - tile.q0]
        k1 = tile.k1
        if tile.causal:
            k1 = q1
            keep = torch.ones(q1 - q0, k1 - tile.k0, dtype=torch.bool).tril(q0 - tile.k0)
        pieces.append(Tile(q0, q1, tile.k0, k1, causal=False, keep=keep))
    return pieces


def _capped_scores(
    query: Tensor, key: Tensor, tile: Tile, scale: float, cap: float
) -> tuple[Tensor, Tensor]:
    """Scores [1, H, q, k] after the cap (-inf where masked), and the cap's slope there."""
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    keys = key[:, :, tile.k0 : tile.k1].to(wide).transpose(-1, -2)
    raw = _grouped(query[:, :, tile.q0 : tile.q1].to(wide), keys)
    squashed = torch.tanh(raw * (scale / cap))
    scores, slope = squashed * cap, 1 - squashed * squashed
    if tile.keep is not None:
        scores = scores.masked_fill(~tile.keep, -math.inf)
    return scores, slope


def _grouped(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product of [1, H, a, b] with [1, G, b, c], each of G serving H / G neighbours."""
    heads, groups = left.shape[1], right.shape[1]
    if heads == groups:
        return left @ right
    _, _, rows, inner = left.shape
    split = left.reshape(1, groups, heads // groups, rows, inner) @ right.unsqueeze(2)
    return split.flatten(1, 2)


def _fold(grad: Tensor, groups: int) -> Tensor:
    """Sum [1, H, k, d] over the query heads that share a key head, to [1, G, k, d]."""
    if grad.shape[1] == groups:
        return grad
    return grad.reshape(1, groups, -1, *grad.shape[2:]).sum(dim=2)
