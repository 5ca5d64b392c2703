"""What each token of a Pack sees, as a list of rectangular attention calls made once on the host.

It knows neither heads nor dtypes: only which range of queries attends to which range of keys.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hone.pack import Node, Pack

_QUERY_BLOCK = 256  # tokens of one windowed tile; larger wastes masked pairs, smaller wastes calls
LEAST_SAVED = (
    16384  # pairs of query and key; a gap of unread queries that saves fewer is not worth a call
)


@dataclass(frozen=True, eq=False)
class Tile:
    """Queries [q0, q1) attend to keys [k0, k1): causally, fully, or where `keep` is true."""

    q0: int
    q1: int
    k0: int
    k1: int
    causal: bool
    keep: Tensor | None = None  # bool[q1 - q0, k1 - k0]


@dataclass(frozen=True, eq=False)
class Tiles:
    """The attention calls of one layer; tokens that none of them has as a query get zeros."""

    calls: tuple[Tile, ...]
    covers_all: bool


class Visible:
    """The attention calls of one Pack, by window; what the attention function receives.

    After the last layer only predicting positions are read, so there the others are no queries at all,
    where a run of them saves at least `least_saved` pairs. `last_layer` is that layer's index; None: every
    layer computes everything.
    """

    def __init__(
        self, pack: Pack, *, last_layer: int | None = None, least_saved: int = LEAST_SAVED
    ) -> None:
        self._nodes = pack.nodes
        self._positions = pack.position_ids
        self.tokens = pack.num_tokens
        self._deepest = int(pack.position_ids.max())
        self._last_layer = last_layer
        self._everything = ((0, self.tokens),)
        self._read = (
            self._everything if last_layer is None else read_ranges(pack, least_saved=least_saved)
        )
        self._tiles = lru_cache(maxsize=8)(self._make_tiles)

    def tiles(self, window: int | None, layer: int | None = None) -> Tiles:
        """Tiles in an order in which the first tile of each query extends the range covered so far.

        `window` w keeps the keys with `position[i] - position[j] < w`; None, or one that no row of
        the Pack reaches, keeps all.
        """
        if window is not None and window > self._deepest:
            window = None
        is_last = layer is not None and layer == self._last_layer
        return self._tiles(window, self._read if is_last else self._everything)

    def _make_tiles(self, window: int | None, read: tuple[tuple[int, int], ...]) -> Tiles:
        tiles: list[Tile] = []
        if window is not None:  # own nodes first: every query then has a finite sum to merge into
            for node in self._nodes:
                for first, last in _within(read, node.start, node.end):
                    tiles.extend(self._windowed(node, first, last, window))
            for node in self._nodes:
                for first, last in _within(read, node.end, node.until):
                    tiles.extend(self._windowed(node, first, last, window))
            return Tiles(tuple(tiles), covers_all=read == self._everything)
        for node in self._nodes:
            for first, last in _within(read, node.start, node.end):
                if first > node.start:
                    tiles.append(Tile(first, last, node.start, first, causal=False))
                tiles.append(Tile(first, last, first, last, causal=True))
            for first, last in _within(read, node.end, node.until):
                tiles.append(Tile(first, last, node.start, node.end, causal=False))
        return Tiles(tuple(tiles), covers_all=read == self._everything)

    def _windowed(self, node: Node, first: int, last: int, window: int) -> list[Tile]:
        """Queries [first, last) on the keys of `node`, in blocks that skip what lies out of reach."""
        tiles: list[Tile] = []
        keys = self._positions[node.start : node.end]
        for q0 in range(first, last, _QUERY_BLOCK):
            q1 = min(last, q0 + _QUERY_BLOCK)
            queries = self._positions[q0:q1]
            apart = queries[:, None] - keys[None, :]
            keep = (apart < window) & (apart >= 0)
            used = np.flatnonzero(keep.any(axis=0))
            if used.size == 0:
                continue
            low, high = int(used[0]), int(used[-1]) + 1
            block = keep[:, low:high]
            tiles.append(
                Tile(
                    q0,
                    q1,
                    node.start + low,
                    node.start + high,
                    causal=False,
                    keep=None if block.all() else torch.from_numpy(block.copy()),
                )
            )
        return tiles


def read_ranges(pack: Pack, *, least_saved: int) -> tuple[tuple[int, int], ...]:
    """The runs of tokens [first, last) that hold every predicting position of a Pack.

    A gap between two of them is left out where its queries would see at least `least_saved` keys in all.
    """
    places = pack.predict
    before = np.concatenate(([0], places[:-1] + 1)) if places.size else places
    seen = np.concatenate(([0], np.cumsum(pack.position_ids + 1)))
    saved = seen[places] - seen[before]
    opens = (saved >= max(1, least_saved)).tolist()
    ranges: list[tuple[int, int]] = []
    start = 0
    for i, place in enumerate(places.tolist()):
        if opens[i]:
            if i:
                ranges.append((start, int(places[i - 1]) + 1))
            start = place
    end = int(places[-1]) + 1 if places.size else 0
    after = int(seen[-1] - seen[end])
    ranges.append((start, end if after >= max(1, least_saved) else pack.num_tokens))
    return tuple((a, b) for a, b in ranges if b > a)


def _within(
    ranges: tuple[tuple[int, int], ...], first: int, last: int
) -> Iterator[tuple[int, int]]:
    """The parts of ascending `ranges` that lie in [first, last)."""
    for low, high in ranges[bisect_right(ranges, first, key=_end) :]:
        if max(low, first) >= min(high, last):
            return
        yield max(low, first), min(high, last)


def _end(span: tuple[int, int]) -> int:
    return span[1]
