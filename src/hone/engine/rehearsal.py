"""The rehearsal before step 1: how long and how large a Pack may be on this machine, by trying it.

It makes up its own Packs; it knows neither the user's rows nor the loop. Its measurements choose how a
step is computed, never what it computes.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from hone.engine.buckets import bucket
from hone.engine.budget import is_out_of_memory
from hone.engine.cost import Speeds, Weight, cheapest, pair_seconds, worth_trying
from hone.engine.demand import KEEP_FREE
from hone.engine.footprint import Footprint
from hone.engine.loss import PackLoss
from hone.engine.memory import free_caches
from hone.engine.room import activation_bytes_per_token, available_bytes, peak_bytes_of
from hone.engine.strategy import Replicated, Strategy
from hone.errors import OutOfMemory
from hone.models.layers import decoder_layers
from hone.models.recompute import can_recompute, recompute, recomputed
from hone.pack import Pack

_TRIAL_SECONDS = 2.0  # no trial Pack is expected to take longer than this
_SHORT_SECONDS = 1.0  # what is shorter is tried in every round
_ROUNDS = 3
_SHORT_ROW = 128  # tokens; rows of trial Packs, in which attention costs next to nothing
_PAIR_TRIAL = 4096  # tokens of the Packs that tell what attention costs, at most


@dataclass(frozen=True)
class Rehearsed:
    """What was measured, and the budget that it led to."""

    micro_batch_tokens: int
    bytes_per_token: float
    available_bytes: int
    speeds: Speeds
    reason: str
    worst_seconds: float
    """Forward and backward of the worst Pack."""
    recomputed: int = 0
    """Layers that are computed again in the backward pass."""
    peak_bytes: int | None = None
    """Most memory that the worst Pack held, weights and gradients included; measured on a GPU."""

    def told(self) -> dict[str, object]:
        """What a `rehearsed` event says of it."""
        return {
            "micro_batch_tokens": self.micro_batch_tokens,
            "reason": self.reason,
            "bytes_per_token": self.bytes_per_token,
            "available_bytes": self.available_bytes,
            "seconds_per_token": self.speeds.token,
            "seconds_per_pair": self.speeds.pair,
            "recomputed_layers": self.recomputed,
            "peak_bytes": self.peak_bytes,
        }


def made_up_pack(
    row_lengths: Sequence[int], *, vocab_size: int, predictions: int | None = None
) -> Pack:
    """A Pack of rows of these lengths in tokens, with so many predictions spread over it (all: None)."""
    lengths = np.asarray(row_lengths, dtype=np.int64)
    ends = np.cumsum(lengths)
    tokens = int(ends[-1])
    first = np.repeat(ends - lengths, lengths)
    last = np.repeat(ends, lengths)
    ids = np.arange(1, tokens + 1, dtype=np.int64) * 7919 % vocab_size
    places = np.arange(tokens)
    if predictions is None or predictions >= tokens:
        predict = places
    else:
        predict = np.unique(
            np.linspace(0, tokens - 1, max(1, predictions)).round().astype(np.int64)
        )
    return Pack(
        input_ids=ids,
        position_ids=(places - first).astype(np.int64),
        visible_until=last.astype(np.int64),
        predict=predict.astype(np.int64),
        source=np.arange(predict.shape[0], dtype=np.int64),
        target=np.roll(ids, -1)[predict],
        weight=np.ones(predict.shape[0], dtype=np.float32),
        row=np.repeat(np.arange(lengths.shape[0], dtype=np.int32), lengths)[predict],
    )


def rehearse(
    loss: PackLoss,
    *,
    longest: int,
    wanted: int | None,
    state_bytes: int,
    trained_share: float,
    layout: Callable[[int], Sequence[Weight]],
    layers: int | None = 0,
    strategy: Strategy | None = None,
    measured: Measured | None = None,
) -> Rehearsed:
    """Choose `micro_batch_tokens` (or check the `wanted` one) and try the worst Pack once.

    `longest` is the longest row in tokens, `trained_share` how many tokens are predicted; `state_bytes` is
    what gradients and optimizer will still allocate; `layout(budget)` is the Packs of a few of the data's
    own steps at that budget. `layers` are computed again in the backward pass; None: as few as memory asks for.
    All ranks of a `strategy` rehearse together and come to one answer, that of the slowest and the fullest;
    `measured` is what `measure_footprint` said before they held the weights in parts. Raises OutOfMemory where
    not even the longest row fits.
    """
    stage = _Stage(loss, strategy if strategy is not None else Replicated(loss))
    device, ranks = loss.head.device, stage.strategy.ranks
    free = int(ranks.least(available_bytes(device, sharers=ranks.local_world)))
    room_bytes = free * (1 - KEEP_FREE[device.type]) - state_bytes
    footprint, fixed_bytes = stage.agreed(
        measured
        or measure_footprint(
            loss, longest, room_bytes=room_bytes, layers=layers, strategy=stage.strategy
        )
    )
    room_bytes = ranks.least(room_bytes) - fixed_bytes
    needed = footprint.fewest(longest, room_bytes)
    if needed is None:
        raise _too_long(longest, footprint, room_bytes, free)
    if footprint.layers:
        recompute(loss.model, needed)
    per_token = footprint.per_token(needed)
    if not loss.shared:  # each row is a Pack of its own, whatever the budget
        _, peak, worst = _try_worst(stage, longest, longest=longest)
        speeds = Speeds({longest: worst / longest})
        again = recomputed(loss.model)
        why = "rows run one at a time"
        return Rehearsed(longest, per_token, free, speeds, why, worst, again, peak)
    room = footprint.longest(room_bytes, needed)
    if wanted is not None:
        budgets: Sequence[int] = (wanted,)
    elif device.type == "cuda":
        budgets = worth_trying(layout, footprint.longest(room_bytes, footprint.layers))
    else:
        budgets = worth_trying(layout, room)
    tried = [budget for budget in budgets if budget <= room] or [min(budgets[0], room)]
    speeds = measure_speeds(
        loss, tried, longest=longest, share=trained_share, strategy=stage.strategy
    )
    again = {b: footprint.fewest(max(b, longest), room_bytes) or 0 for b in budgets}
    budget, reason = _choose(
        budgets, speeds, layout, wanted=wanted, slower=_slower(footprint, again)
    )
    if footprint.layers:
        recompute(loss.model, again[budget])
    budget, peak, worst = _try_worst(stage, budget, longest=longest)
    again_now = recomputed(loss.model)
    return Rehearsed(budget, per_token, free, speeds, reason, worst, again_now, peak)


Measured = tuple[Footprint, float]
"""A footprint, and the bytes that a pass needs whatever its length."""


@dataclass(frozen=True)
class _Stage:
    """The model to be tried, as the ranks hold it."""

    loss: PackLoss
    strategy: Strategy

    def run(self, pack: Pack) -> None:
        """One forward and backward that leaves no gradient."""
        self.strategy.backward(pack, 1.0, last=True)
        if self.loss.head.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, pack: Pack) -> float:
        """Of that, on the rank that takes longest."""
        ranks = self.strategy.ranks
        ranks.work(f"rehearsing {pack.num_tokens:,} tokens")
        ranks.wait()  # so that none counts its waiting for a later one
        start = time.perf_counter()
        self.run(pack)
        elapsed = time.perf_counter() - start
        self.strategy.discard()
        return ranks.most(elapsed)

    def agreed(self, measured: Measured) -> Measured:
        """The most that any rank has measured."""
        footprint, fixed = measured
        ranks = self.strategy.ranks
        kept, again = ranks.most(footprint.kept), ranks.most(footprint.again)
        layers = int(ranks.most(footprint.layers))
        return Footprint(kept, again, layers), ranks.most(fixed)


def measure_footprint(
    loss: PackLoss,
    longest: int,
    *,
    room_bytes: float,
    layers: int | None,
    strategy: Strategy | None = None,
) -> Measured:
    """What a token keeps, and on a GPU the bytes that a pass needs whatever its length.

    With `layers` given the footprint is that of so many recomputed layers, and cannot be changed; otherwise
    what recomputing saves is measured too, on a CPU only where the longest row asks for it.
    """
    stage = _Stage(loss, strategy if strategy is not None else Replicated(loss))
    recompute(loss.model, layers or 0)
    may_change = layers is None and can_recompute(loss.model)
    count = len(decoder_layers(loss.model))
    try:
        kept, fixed = _bytes_per_token(stage, longest)
    except (MemoryError, RuntimeError) as error:
        if not (may_change and is_out_of_memory(error) and stage.strategy.redoes):
            raise
        kept, fixed = math.inf, 0.0
    enough = loss.head.device.type == "cpu" and longest * kept <= room_bytes
    if not may_change or enough:
        return Footprint(kept, kept, 0), fixed
    free_caches(loss.head.device)
    recompute(loss.model, count)
    again, at_least = _bytes_per_token(stage, longest)
    if kept == math.inf:  # not even a small Pack fits otherwise
        return Footprint(again, again, 0), at_least
    recompute(loss.model, 0)
    return Footprint(kept, min(kept, again), count), max(fixed, at_least)


def _bytes_per_token(stage: _Stage, longest: int) -> tuple[float, float]:
    """Bytes a token, and bytes in any case: counted tensor by tensor on a CPU, from the peaks of two Packs on a GPU."""
    loss, strategy = stage.loss, stage.strategy
    vocab = loss.head.vocab_size
    if loss.head.device.type != "cuda":
        small = made_up_pack([min(256, longest)], vocab_size=vocab)
        return activation_bytes_per_token(loss, small), 0.0
    sizes = (bucket(loss.chunk_positions), bucket(2 * loss.chunk_positions))
    if not loss.shared:
        sizes = (max(1, longest // 4), max(2, longest // 2))
    first, second = (
        made_up_pack(
            _rows(size, min(size, longest)), vocab_size=vocab, predictions=min(sizes[0], size)
        )
        for size in sizes
    )
    low, high = (
        peak_bytes_of(loss.head.device, partial(stage.run, pack), strategy.discard)
        for pack in (first, second)
    )
    slope = max(1.0, (high - low) / max(1, second.num_tokens - first.num_tokens))
    gradients = sum(4 * p.numel() for p in strategy.trained.values())
    return slope, max(0.0, low - slope * first.num_tokens - gradients)


def _slower(footprint: Footprint, again: Mapping[int, int]) -> Callable[[int], float]:
    """How many times as long a step takes at a budget, for what it must compute again: half of forward and backward
    at most, since a forward pass is a third of a full step and half of one with frozen weights."""
    return lambda budget: 1 + 0.5 * again[budget] / max(1, footprint.layers)


def _too_long(longest: int, footprint: Footprint, room_bytes: float, free: int) -> OutOfMemory:
    fits = footprint.longest(room_bytes, footprint.layers)
    each = footprint.per_token(footprint.layers)
    return OutOfMemory(
        f"the longest row has {longest} tokens; about {fits} fit in the free memory "
        f"({free / 2**30:.1f} GiB at {each / 2**10:.0f} KiB a token)",
        remedy="set compute.gradient_checkpointing=true, or data.max_length with "
        "data.too_long=drop, or a smaller model",
    )


def measure_speeds(
    loss: PackLoss,
    budgets: Sequence[int],
    *,
    longest: int,
    share: float,
    strategy: Strategy | None = None,
) -> Speeds:
    """Seconds of forward and backward: by Pack size, in short rows, as far as trials stay short; and by pair."""
    stage = _Stage(loss, strategy if strategy is not None else Replicated(loss))

    def timed(tokens: int, row_tokens: int) -> tuple[Weight, float]:
        pack = made_up_pack(
            _rows(tokens, row_tokens),
            vocab_size=loss.head.vocab_size,
            predictions=round(tokens * share),
        )
        return Weight(tokens, pack.visible_pairs), stage.seconds(pack)

    short = min(_SHORT_ROW, longest)
    trials: dict[int, tuple[Weight, float]] = {}
    for budget in budgets:
        guess = 0.0
        if trials:
            weight, seconds = trials[max(trials)]
            guess = seconds * budget / weight.tokens
        if guess > _TRIAL_SECONDS:
            break
        first = [] if trials else [timed(budget, short)]  # what happens once is in the first of all
        trials[budget] = min([*first, timed(budget, short)], key=_seconds)
    for _ in range(_ROUNDS - 1):  # not twice in a row: a busy moment would slow both, and decide
        for budget, (weight, seconds) in trials.items():
            if seconds < _SHORT_SECONDS:
                trials[budget] = weight, min(seconds, timed(budget, short)[1])
    pair = 0.0
    sizes = [size for size in trials if short < size <= min(_PAIR_TRIAL, longest)]
    if sizes and len(trials) > 1:
        size = max(sizes)
        pair = pair_seconds(trials[size], min((timed(size, size) for _ in range(2)), key=_seconds))
    token = {
        size: max(0.0, seconds - pair * weight.pairs) / weight.tokens
        for size, (weight, seconds) in trials.items()
    }
    return Speeds(token, pair)


def _seconds(trial: tuple[Weight, float]) -> float:
    return trial[1]


def _rows(tokens: int, row_tokens: int) -> list[int]:
    """`tokens` tokens as rows of `row_tokens` and a rest."""
    rows, rest = divmod(tokens, row_tokens)
    return [row_tokens] * rows + [rest] * (rest > 0)


def _choose(
    budgets: Sequence[int],
    speeds: Speeds,
    layout: Callable[[int], Sequence[Weight]],
    *,
    wanted: int | None,
    slower: Callable[[int], float],
) -> tuple[int, str]:
    if wanted is not None:
        return wanted, "as set"
    chosen = cheapest(budgets, speeds, layout, slower=slower)
    return chosen, "the fastest here, sharing counted"


def _try_worst(stage: _Stage, budget: int, *, longest: int) -> tuple[int, int | None, float]:
    """One forward and backward of the worst Pack, and its seconds; halves the budget while memory runs out. On a GPU
    also its peak.

    Attention keeps as much for a token of a short row as for one of a long row, so one row is the longest.
    The head holds one chunk of logits at a time, so two chunks need what a thousand would.
    """
    vocab = stage.loss.head.vocab_size
    chunks = 2 * stage.loss.chunk_positions
    while True:
        worst = max(budget, longest)
        rows = [longest, *_rows(worst - longest, min(_SHORT_ROW, longest))]
        pack = made_up_pack(rows, vocab_size=vocab, predictions=min(worst, chunks))
        tried = _try(stage, pack)
        if tried is not None:
            return budget, *tried
        smaller = max(longest, budget // 2)
        if budget <= longest:
            raise OutOfMemory(
                f"a Pack of {worst} tokens does not fit",
                remedy="set compute.gradient_checkpointing=true, or a smaller data.max_length",
            )
        if not stage.strategy.redoes:
            fault = OutOfMemory(f"a Pack of {worst} tokens does not fit")
            fault.smaller = (1, smaller)
            raise fault
        budget = smaller


def _try(stage: _Stage, pack: Pack) -> tuple[int | None, float] | None:
    """Peak bytes (on a GPU) and seconds of a Pack; None where memory ran out on any rank that nobody waits for."""
    strategy, device = stage.strategy, stage.loss.head.device
    fits, peak, start = True, None, time.perf_counter()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        stage.run(pack)
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    seconds = time.perf_counter() - start
    if not fits and not strategy.redoes:
        return None
    strategy.discard()
    gc.collect()
    if strategy.ranks.any(not fits):
        return None
    return peak, strategy.ranks.most(seconds)
