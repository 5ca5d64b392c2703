"""Flash attention over rows of different lengths in one call, through `torch.nn.attention.varlen`.

It knows no model: queries, keys and values of all rows behind one another, and where each row begins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hone.pack import Pack


def row_bounds(pack: Pack) -> NDArray[np.int32]:
    """int32[R + 1]: where each row of a Pack without sharing begins, and the end.

    Tokens at the end that see only themselves and predict nothing fill the Pack up; they count as one row, since
    what they see of one another is never read.
    """
    until = pack.visible_until
    starts = np.flatnonzero(np.concatenate(([True], until[1:] != until[:-1])))
    end = int(pack.predict[-1]) + 1 if pack.predict.size else 0
    alone = until == np.arange(1, pack.num_tokens + 1)
    filled = pack.num_tokens - int(np.argmin(np.append(alone[::-1], False)))
    tail = max(end, filled)
    return np.append(starts[starts <= tail], pack.num_tokens).astype(np.int32)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bounds: Tensor,
    longest: int,
    scale: float,
    window: int | None,
) -> Tensor:
    """Causal attention within each row.

    `query` is [T, H, D], `key` and `value` [T, G, D], `bounds` int32[R + 1] on the device; returns [T, H, D].
    `window` w keeps keys less than w places back.
    """
    named = arguments(
        _parameters(), scale=scale, window=window, shares_heads=query.shape[1] != key.shape[1]
    )
    return cast(Tensor, _kernel()(query, key, value, bounds, bounds, longest, longest, **named))


def arguments(
    parameters: frozenset[str], *, scale: float, window: int | None, shares_heads: bool
) -> dict[str, Any]:
    """What the kernel is told by name; `parameters` are those that its version has.

    torch 2.11 takes fewer key heads as they come; later versions want it said.
    """
    named: dict[str, Any] = {
        "scale": scale,
        "window_size": (-1 if window is None else window - 1, 0),
    }
    if shares_heads and "enable_gqa" in parameters:
        named["enable_gqa"] = True
    return named


@lru_cache(maxsize=1)
def is_here() -> bool:
    """Whether this torch has the kernel, with the arguments that are needed."""
    try:
        return {"scale", "window_size"} <= _parameters()
    except ImportError:
        return False


def _kernel() -> Callable[..., Any]:
    from torch.nn.attention.varlen import varlen_attn

    return cast("Callable[..., Any]", varlen_attn)


@lru_cache(maxsize=1)
def _parameters() -> frozenset[str]:
    return frozenset(inspect.signature(_kernel()).parameters)
