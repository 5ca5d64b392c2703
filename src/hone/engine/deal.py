"""Which rank computes which Packs of a step: by expected seconds, the same on every rank, with nothing sent.

It knows neither weights nor how ranks talk to each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hone.engine.ahead import Source
from hone.engine.cost import Speeds, Weight
from hone.pack import Pack, Step

_FINER: Final = (1.5, 1.2, 1.0, 0.5)  # shares of a rank's fair part that a smaller Pack may hold
_LEAST_GAIN: Final = 0.97  # a finer layout must take less than so much of the coarser one's time
_EVEN: Final = 1.1  # no other layout is tried when the longest hand is so near to the fair part


def weight_of(pack: Pack) -> Weight:
    """What a Pack's time depends on."""
    return Weight(pack.num_tokens, pack.visible_pairs)


def deal(packs: Sequence[Pack], world: int, speeds: Speeds) -> tuple[tuple[Pack, ...], ...]:
    """Packs by rank: the longest first to the rank with the least so far (Graham 1969).

    Each rank's own stand from longest to shortest, so that where ranks wait for each other after every
    Pack, they wait for equals.
    """
    if world == 1:
        return (tuple(packs),)
    seconds = [speeds.seconds([weight_of(pack)]) for pack in packs]
    hands: list[list[Pack]] = [[] for _ in range(world)]
    sums = [0.0] * world
    for i in sorted(range(len(packs)), key=lambda i: (-seconds[i], i)):
        least = min(range(world), key=lambda rank: (sums[rank], rank))
        hands[least].append(packs[i])
        sums[least] += seconds[i]
    return tuple(tuple(hand) for hand in hands)


def longest_hand(packs: Sequence[Pack], world: int, speeds: Speeds) -> tuple[Pack, ...]:
    """The Packs of the rank that the others wait for."""
    hands = deal(packs, world, speeds)
    return max(hands, key=lambda hand: speeds.seconds(map(weight_of, hand)))


def empty_pack() -> Pack:
    """One token that is predicted with weight 0: a pass that adds nothing, for a rank with no Pack left."""
    one = np.zeros(1, dtype=np.int64)
    return Pack(
        input_ids=one,
        position_ids=one,
        visible_until=one + 1,
        predict=one,
        source=one,
        target=one,
        weight=np.zeros(1, dtype=np.float32),
        row=np.zeros(1, dtype=np.int32),
    )


def longest_hands(source: Source, steps: Iterable[int], budget: int, world: int) -> list[Weight]:
    """Of a few steps, the Packs of the rank that the others would wait for, by their tokens."""
    by_tokens = Speeds({1: 1.0})
    spread = source if world == 1 else Spread(source, world, by_tokens)
    return [
        weight_of(pack)
        for index in steps
        for pack in longest_hand(spread.step(index, budget).packs, world, by_tokens)
    ]


@dataclass(frozen=True)
class Spread:
    """A source whose layouts suit so many ranks: where a step would keep few of them busy, its Packs are smaller.

    Still a pure function of (index, budget): the layout among a few whose longest hand is the shortest.
    """

    source: Source
    world: int
    speeds: Speeds

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass, where the source knows."""
        return int(getattr(self.source, "steps_per_epoch"))  # noqa: B009 - not every source has it

    def step(self, index: int, micro_batch_tokens: int) -> Step:
        """The 0-based step `index`, in Packs of at most so many tokens where Examples allow it."""
        best = self.source.step(index, micro_batch_tokens)
        seconds = self._seconds(best)
        least = self.speeds.seconds(map(weight_of, best.packs)) / self.world
        fair = best.computed_tokens / self.world
        for share in _FINER:
            finer = math.ceil(fair * share)
            if seconds <= _EVEN * least or not 0 < finer < micro_batch_tokens:
                continue
            other = self.source.step(index, finer)
            taken = self._seconds(other)
            if taken < seconds * _LEAST_GAIN:
                best, seconds = other, taken
        return best

    def _seconds(self, step: Step) -> float:
        hand = longest_hand(step.packs, self.world, self.speeds)
        return self.speeds.seconds(map(weight_of, hand))
