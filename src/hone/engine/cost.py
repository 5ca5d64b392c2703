"""What a Pack costs in time: so much for each token, by the size of the Pack, and so much for each pair that attends.

It knows no model: speeds measured elsewhere go in, seconds of a layout come out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

BUDGETS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Tokens in a Pack at most: what `auto` chooses from."""
_NOISE = 1.02  # two trials of one thing differ by so much


class Weight(NamedTuple):
    """What the time of a Pack depends on."""

    tokens: int
    pairs: int  # (query, key) with the key visible to the query, of one layer


@dataclass(frozen=True)
class Speeds:
    """Seconds of forward and backward, measured on this machine."""

    token: Mapping[int, float]  # seconds a token, without attention, by tokens in the Pack
    pair: float = 0.0  # seconds a pair, all layers

    def seconds(self, packs: Iterable[Weight]) -> float:
        """Expected seconds of a layout, Pack by Pack."""
        return sum(
            pack.tokens * self._token(pack.tokens) + pack.pairs * self.pair for pack in packs
        )

    def to_json(self) -> dict[str, Any]:
        """As a run keeps them."""
        return {"token": {str(k): v for k, v in self.token.items()}, "pair": self.pair}

    @classmethod
    def from_json(cls, told: Mapping[str, Any] | None) -> Speeds:
        """The inverse; None (a run of before they were kept) counts tokens."""
        if told is None:
            return cls({1: 1.0})
        return cls({int(k): float(v) for k, v in told["token"].items()}, float(told["pair"]))

    def _token(self, tokens: int) -> float:
        """Interpolated over the logarithm of the size; flat beyond what was measured."""
        sizes = sorted(self.token)
        place = bisect_left(sizes, tokens)
        if place == 0 or place == len(sizes):
            return self.token[sizes[min(place, len(sizes) - 1)]]
        low, high = sizes[place - 1], sizes[place]
        share = math.log(tokens / low) / math.log(high / low)
        return self.token[low] * (1 - share) + self.token[high] * share


def pair_seconds(rows_short: tuple[Weight, float], rows_long: tuple[Weight, float]) -> float:
    """Seconds a pair from two Packs of equal size, (weight, seconds) each, with shorter and longer rows."""
    (few, quick), (many, slow) = rows_short, rows_long
    apart = many.pairs - few.pairs
    return max(0.0, (slow - quick) / apart) if apart > 0 else 0.0


def cheapest(
    budgets: Iterable[int],
    speeds: Speeds,
    layout: Callable[[int], Iterable[Weight]],
    *,
    slower: Callable[[int], float] = lambda _budget: 1.0,
) -> int:
    """The budget whose layout takes the least time; a larger one must win by more than a trial's noise.

    `slower(budget)` is how many times as long a step takes there for other reasons.
    """
    seconds = {budget: speeds.seconds(layout(budget)) * slower(budget) for budget in budgets}
    best = min(seconds.values())
    return min(budget for budget in seconds if seconds[budget] <= best * _NOISE)


def worth_trying(layout: Callable[[int], Sequence[Weight]], room: int) -> list[int]:
    """Of `BUDGETS` those that fit into `room` tokens, up to the first that holds every step in as few Packs as any."""
    largest = max(pack.tokens for pack in layout(2**31))
    useful = next((b for b in BUDGETS if b >= largest), BUDGETS[-1])
    return [b for b in BUDGETS if b <= min(room, useful)] or [min(BUDGETS[0], room)]
