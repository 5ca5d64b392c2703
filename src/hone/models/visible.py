"""What each token of a Pack sees, as a list of rectangular attention calls made once on the host.

It knows neither heads nor dtypes: only which range of queries attends to which range of keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hone.pack import Node, Pack

_QUERY_BLOCK = 256  # tokens of one windowed tile; larger wastes masked pairs, smaller wastes calls


@dataclass(frozen=True, eq=False)
class Tile:
    """Queries [q0, q1) attend to keys [k0, k1): causally, fully, or where `keep` is true."""

    q0: int
    q1: int
    k0: int
    k1: int
    causal: bool
    keep: Tensor | None = None  # bool[q1 - q0, k1 - k0]


class Visible:
    """The attention calls of one Pack, by window; what the attention function receives."""

    def __init__(self, pack: Pack) -> None:
        self._nodes = pack.nodes
        self._positions = pack.position_ids
        self.tokens = pack.num_tokens
        self._deepest = int(pack.position_ids.max())
        self._tiles = lru_cache(maxsize=8)(self._make_tiles)

    def tiles(self, window: int | None) -> tuple[Tile, ...]:
        """Tiles in an order in which the first tile of each query extends the range covered so far.

        `window` w keeps the keys with `position[i] - position[j] < w`; None, or one that no row of
        the Pack reaches, keeps all.
        """
        if window is not None and window > self._deepest:
            window = None
        return self._tiles(window)

    def _make_tiles(self, window: int | None) -> tuple[Tile, ...]:
        tiles: list[Tile] = []
        if window is not None:  # own nodes first: every query then has a finite sum to merge into
            for node in self._nodes:
                tiles.extend(self._windowed(node, node.start, node.end, window))
            for node in self._nodes:
                tiles.extend(self._windowed(node, node.end, node.until, window))
            return tuple(tiles)
        for node in self._nodes:
            tiles.append(Tile(node.start, node.end, node.start, node.end, causal=True))
            if node.until > node.end:
                tiles.append(Tile(node.end, node.until, node.start, node.end, causal=False))
        return tuple(tiles)

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
