"""What a token of a Pack keeps for the backward pass, and how many layers must recompute so that a Pack fits.

Numbers only: they are measured elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Footprint:
    """Bytes a token, with no layer recomputed and with all of them; memory is linear in how many are."""

    kept: float
    again: float
    layers: int

    def per_token(self, recomputed: int) -> float:
        """Bytes a token that stay until the backward pass reaches them."""
        return self.kept - self._layer * recomputed

    def in_all(self, tokens: int, recomputed: int) -> float:
        """Bytes of a Pack at its peak: what stays, and one layer that is being computed again."""
        return tokens * (self.per_token(recomputed) + (self._layer if recomputed else 0.0))

    def fewest(self, tokens: int, room: float) -> int | None:
        """The fewest recomputed layers with which a Pack of so many tokens fits into `room` bytes; None: it never does."""
        if self.in_all(tokens, 0) <= room:
            return 0
        if self._layer <= 0:
            return None
        over = tokens * (self.kept + self._layer) - room
        needed = max(1, math.ceil(over / (tokens * self._layer) - 1e-9))
        return needed if needed <= self.layers else None

    def longest(self, room: float, recomputed: int) -> int:
        """Most tokens of a Pack that fit into `room` bytes."""
        return max(0, int(room / max(1.0, self.in_all(1, recomputed))))

    @property
    def _layer(self) -> float:
        """Bytes a token that one recomputed layer gives up."""
        return max(0.0, self.kept - self.again) / self.layers if self.layers else 0.0
