"""Which blocks of a Pack's attention matrix hold anything, from minima and maxima alone; for flex attention.

Token j is seen by token i where `j <= i < visible_until[j]`, so a block of keys concerns a block of queries exactly
where the largest `visible_until` of the one reaches into the other: no T x T matrix is made. It knows no model.

Legend: T tokens, B tokens in a block, N blocks (the last one may be short).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from hone.models.sending import send
from hone.pack import Int64, Pack

BLOCK = 128  # tokens; what flex attention's kernels are built for

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Blocks:
    """bool[N, N] by block of queries and block of keys: `some` hold a visible pair and a hidden one, in `full` all are.

    With a window `some` may hold blocks without a visible pair: distance is known by its bounds only. The
    mask function, which is asked for every pair of such a block, keeps the result exact.
    """

    some: NDArray[np.bool_]
    full: NDArray[np.bool_]


def find_blocks(pack: Pack, *, window: int | None = None, only_read: bool = False) -> Blocks:
    """The blocks of a Pack's attention.

    `window` w keeps keys with `position[i] - position[j] < w`. With `only_read` blocks of queries in which no
    token predicts see nothing: after the last layer nobody reads them.
    """
    tokens = pack.num_tokens
    starts = np.arange(0, tokens, BLOCK)
    ends = np.minimum(starts + BLOCK, tokens)  # exclusive
    whole = ends - starts == BLOCK
    until = pack.visible_until
    last_seen = np.maximum.reduceat(until, starts)
    first_hidden = np.minimum.reduceat(until, starts)
    below = starts[:, None] > starts[None, :]  # keys in a block before the queries'
    touched = below & (last_seen[None, :] > starts[:, None])
    full = below & (first_hidden[None, :] >= ends[:, None]) & whole[:, None] & whole[None, :]
    touched |= np.eye(starts.shape[0], dtype=bool)  # a token sees itself
    if window is not None:
        nearest = _least(pack.position_ids, starts)[:, None] - _most(pack.position_ids, starts)
        farthest = _most(pack.position_ids, starts)[:, None] - _least(pack.position_ids, starts)
        touched &= (nearest < window) | np.eye(starts.shape[0], dtype=bool)
        full &= farthest < window
    if only_read:
        read = np.zeros(tokens, dtype=bool)
        read[pack.predict] = True
        asked = np.logical_or.reduceat(read, starts)
        touched &= asked[:, None]
        full &= asked[:, None]
    return Blocks(some=touched & ~full, full=full & touched)


def _least(values: Int64, starts: Int64) -> Int64:
    return np.minimum.reduceat(values, starts)


def _most(values: Int64, starts: Int64) -> Int64:
    return np.maximum.reduceat(values, starts)


def mask_function(until: Tensor, positions: Tensor, window: int | None) -> MaskFunction:
    """Whether a query sees a key, by their places; `until` and `positions` are int[T] on the device."""
    if window is None:
        return lambda _batch, _head, query, key: (key <= query) & (query < until[key])
    return lambda _batch, _head, query, key: (
        (key <= query) & (query < until[key]) & (positions[query] - positions[key] < window)
    )


def block_mask(
    blocks: Blocks, function: MaskFunction, *, tokens: int, device: torch.device
) -> BlockMask:
    """The blocks as flex attention takes them, sent to the device without waiting for it."""
    some_count, some = _ordered(blocks.some)
    full_count, full = _ordered(blocks.full)
    sent = send(
        {"some_count": some_count, "some": some, "full_count": full_count, "full": full}, device
    )
    make = cast("Callable[..., BlockMask]", cast(Any, BlockMask).from_kv_blocks)
    return make(
        sent["some_count"][None, None],
        sent["some"][None, None],
        sent["full_count"][None, None],
        sent["full"][None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=function,
        seq_lengths=(tokens, tokens),
    )


def _ordered(blocks: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """int32[N] how many blocks of keys each row has, and int32[N, N] their places, those first and ascending."""
    places = np.argsort(~blocks, axis=1, kind="stable")
    return blocks.sum(axis=1, dtype=np.int32), places.astype(np.int32)
