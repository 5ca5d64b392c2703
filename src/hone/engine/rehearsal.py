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
from hone.errors import OutOfMemory
from hone.models.layers import decoder_layers
from hone.models.recompute import can_recompute, recompute, recomputed
from hone.pack import Pack

_TRIAL_SECONDS = 2.0  # no trial Pack is expected to take longer than this
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
) -> Rehearsed:
    """Choose `micro_batch_tokens` (or check the `wanted` one) and try the worst Pack once.

    `longest` is the longest row in tokens, `trained_share` how many tokens are predicted; `state_bytes` is
    what gradients and optimizer will still allocate; `layout(budget)` is the Packs of a few of the data's
    own steps at that budget. `layers` are computed again in the backward pass; None: as few as memory asks for.
    Raises OutOfMemory where not even the longest row fits.
    """
    device = loss.head.device
    free = available_bytes(device)
    room_bytes = free * (1 - KEEP_FREE[device.type]) - state_bytes
    footprint, fixed_bytes = measure_footprint(loss, longest, room_bytes=room_bytes, layers=layers)
    room_bytes -= fixed_bytes
    needed = footprint.fewest(longest, room_bytes)
    if needed is None:
        raise _too_long(longest, footprint, room_bytes, free)
    if footprint.layers:
        recompute(loss.model, needed)
    per_token = footprint.per_token(needed)
    if not loss.shared:  # each row is a Pack of its own, whatever the budget
        _, peak = _try_worst(loss, longest, longest=longest)
        again = recomputed(loss.model)
        return Rehearsed(
            longest, per_token, free, Speeds({}), "rows run one at a time", again, peak
        )
    room = footprint.longest(room_bytes, needed)
    if wanted is not None:
        budgets: Sequence[int] = (wanted,)
    elif device.type == "cuda":
        budgets = worth_trying(layout, footprint.longest(room_bytes, footprint.layers))
    else:
        budgets = worth_trying(layout, room)
    tried = [budget for budget in budgets if budget <= room] or [min(budgets[0], room)]
    speeds = measure_speeds(loss, tried, longest=longest, share=trained_share)
    again = {b: footprint.fewest(max(b, longest), room_bytes) or 0 for b in budgets}
    budget, reason = _choose(
        budgets, speeds, layout, wanted=wanted, slower=_slower(footprint, again)
    )
    if footprint.layers:
        recompute(loss.model, again[budget])
    budget, peak = _try_worst(loss, budget, longest=longest)
    return Rehearsed(budget, per_token, free, speeds, reason, recomputed(loss.model), peak)


def measure_footprint(
    loss: PackLoss, longest: int, *, room_bytes: float, layers: int | None
) -> tuple[Footprint, float]:
    """What a token keeps, and on a GPU the bytes that a pass needs whatever its length.

    With `layers` given the footprint is that of so many recomputed layers, and cannot be changed; otherwise
    what recomputing saves is measured too, on a CPU only where the longest row asks for it.
    """
    recompute(loss.model, layers or 0)
    may_change = layers is None and can_recompute(loss.model)
    count = len(decoder_layers(loss.model))
    try:
        kept, fixed = _bytes_per_token(loss, longest)
    except (MemoryError, RuntimeError) as error:
        if not (may_change and is_out_of_memory(error)):
            raise
        kept, fixed = math.inf, 0.0
    enough = loss.head.device.type == "cpu" and longest * kept <= room_bytes
    if not may_change or enough:
        return Footprint(kept, kept, 0), fixed
    free_caches(loss.head.device)
    recompute(loss.model, count)
    again, at_least = _bytes_per_token(loss, longest)
    if kept == math.inf:  # not even a small Pack fits otherwise
        return Footprint(again, again, 0), at_least
    recompute(loss.model, 0)
    return Footprint(kept, min(kept, again), count), max(fixed, at_least)


def _bytes_per_token(loss: PackLoss, longest: int) -> tuple[float, float]:
    """Bytes a token, and bytes in any case: counted tensor by tensor on a CPU, from the peaks of two Packs on a GPU."""
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
    low, high = peak_bytes_of(loss, first), peak_bytes_of(loss, second)
    slope = max(1.0, (high - low) / max(1, second.num_tokens - first.num_tokens))
    gradients = sum(4 * p.numel() for p in loss.parameters() if p.requires_grad)
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


def measure_speeds(loss: PackLoss, budgets: Sequence[int], *, longest: int, share: float) -> Speeds:
    """Seconds of forward and backward: by Pack size, in short rows, as far as trials stay short; and by pair."""

    def timed(tokens: int, row_tokens: int, times: int) -> tuple[Weight, float]:
        pack = made_up_pack(
            _rows(tokens, row_tokens),
            vocab_size=loss.head.vocab_size,
            predictions=round(tokens * share),
        )
        seconds = min(_seconds(loss, pack) for _ in range(times))
        return Weight(tokens, pack.visible_pairs), seconds

    short = min(_SHORT_ROW, longest)
    trials: dict[int, tuple[Weight, float]] = {}
    for budget in budgets:
        guess = 0.0
        if trials:
            weight, seconds = trials[max(trials)]
            guess = seconds * budget / weight.tokens
        if guess > _TRIAL_SECONDS:
            break
        trials[budget] = timed(budget, short, 2 if guess < 1.0 else 1)
    pair = 0.0
    sizes = [size for size in trials if short < size <= min(_PAIR_TRIAL, longest)]
    if sizes and len(trials) > 1:
        size = max(sizes)
        pair = pair_seconds(trials[size], timed(size, size, 2))
    token = {
        size: max(0.0, seconds - pair * weight.pairs) / weight.tokens
        for size, (weight, seconds) in trials.items()
    }
    return Speeds(token, pair)


def _rows(tokens: int, row_tokens: int) -> list[int]:
    """`tokens` tokens as rows of `row_tokens` and a rest."""
    rows, rest = divmod(tokens, row_tokens)
    return [row_tokens] * rows + [rest] * (rest > 0)


def _seconds(loss: PackLoss, pack: Pack) -> float:
    start = time.perf_counter()
    loss(pack, 1.0).backward()
    if loss.head.device.type == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    loss.zero_grad(set_to_none=True)
    return elapsed


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


def _try_worst(loss: PackLoss, budget: int, *, longest: int) -> tuple[int, int | None]:
    """One forward and backward of the worst Pack; halves the budget while memory runs out. On a GPU also its peak.

    Attention keeps as much for a token of a short row as for one of a long row, so one row is the longest.
    The head holds one chunk of logits at a time, so two chunks need what a thousand would.
    """
    vocab = loss.head.vocab_size
    chunks = 2 * loss.chunk_positions
    while True:
        worst = max(budget, longest)
        rows = [longest, *_rows(worst - longest, min(_SHORT_ROW, longest))]
        pack = made_up_pack(rows, vocab_size=vocab, predictions=min(worst, chunks))
        peak = None
        try:
            if loss.head.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(loss.head.device)
                _seconds(loss, pack)
                peak = torch.cuda.max_memory_allocated(loss.head.device)
            else:
                _seconds(loss, pack)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            loss.zero_grad(set_to_none=True)
            gc.collect()
            if budget <= longest:
                raise OutOfMemory(
                    f"a Pack of {worst} tokens does not fit",
                    remedy="set compute.gradient_checkpointing=true, or a smaller data.max_length",
                ) from error
            budget = max(longest, budget // 2)
        else:
            return budget, peak
