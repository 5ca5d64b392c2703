"""The rehearsal before step 1: how long and how large a Pack may be on this machine, by trying it.

It makes up its own Packs; it knows neither the user's rows nor the loop. Its measurements choose how a
step is computed, never what it computes.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hone.engine.budget import is_out_of_memory
from hone.engine.cost import Speeds, Weight, cheapest, pair_seconds
from hone.engine.loss import CHUNK_BYTES, PackLoss
from hone.engine.room import activation_bytes_per_token, available_bytes
from hone.engine.strategy import Replicated, Strategy
from hone.errors import OutOfMemory
from hone.pack import Pack

BUDGETS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
_TRIAL_SECONDS = 2.0  # no trial Pack is expected to take longer than this
_SHORT_ROW = 128  # tokens; rows of trial Packs, in which attention costs next to nothing
_PAIR_TRIAL = 4096  # tokens of the Packs that tell what attention costs, at most
_KEEP_FREE = 0.25  # share of the free memory that is left alone


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
    strategy: Strategy | None = None,
    bytes_per_token: float | None = None,
) -> Rehearsed:
    """Choose `micro_batch_tokens` (or check the `wanted` one) and try the worst Pack once.

    `longest` is the longest row in tokens, `trained_share` how many tokens are predicted; `state_bytes` is
    what gradients and optimizer will still allocate; `layout(budget)` is the Packs of a few of the data's
    own steps at that budget. All ranks of a `strategy` rehearse together and come to one answer, that of the
    slowest and the fullest; `bytes_per_token` is given where weights lie in shards, which a forward would
    count as its own. Raises OutOfMemory where not even the longest row fits.
    """
    stage = _Stage(loss, strategy if strategy is not None else Replicated(loss))
    ranks = stage.strategy.ranks
    device = loss.head.device
    per_token = ranks.most(bytes_per_token or measure_bytes_per_token(loss, longest))
    free = int(ranks.least(available_bytes(device, sharers=ranks.local_world)))
    room = int((free * (1 - _KEEP_FREE) - state_bytes) / max(1.0, per_token))
    if longest > room:
        raise OutOfMemory(
            f"the longest row has {longest} tokens; about {max(0, room)} fit in the free memory "
            f"({free / 2**30:.1f} GiB at {per_token / 2**10:.0f} KiB a token)",
            remedy="set compute.gradient_checkpointing=true, or data.max_length with "
            "data.too_long=drop, or a smaller model",
        )
    if not loss.shared:  # each row is a Pack of its own, whatever the budget
        _, worst = _try_worst(stage, longest, longest=longest)
        speeds = Speeds({longest: worst / longest})
        return Rehearsed(longest, per_token, free, speeds, "rows run one at a time", worst)
    if wanted is not None:
        budgets: Sequence[int] = (wanted,)
    elif device.type == "cuda":
        budgets = [max(b for b in BUDGETS if b <= max(room, BUDGETS[0]))]
    else:
        budgets = _worth_trying(layout, room)
    speeds = measure_speeds(
        loss, budgets, longest=longest, share=trained_share, strategy=stage.strategy
    )
    budget, reason = _choose(budgets, speeds, layout, wanted=wanted, device=device)
    budget, worst = _try_worst(stage, budget, longest=longest)
    return Rehearsed(budget, per_token, free, speeds, reason, worst)


@dataclass(frozen=True)
class _Stage:
    """The model to be tried, as the ranks hold it."""

    loss: PackLoss
    strategy: Strategy

    def seconds(self, pack: Pack) -> float:
        """One forward and backward, of the rank that takes longest."""
        ranks = self.strategy.ranks
        ranks.work(f"rehearsing {pack.num_tokens:,} tokens")
        ranks.wait()  # so that none counts its waiting for a later one
        start = time.perf_counter()
        self.strategy.backward(pack, 1.0, last=True)
        if self.loss.head.device.type == "cuda":
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - start
        self.strategy.discard()
        return ranks.most(elapsed)


def measure_bytes_per_token(loss: PackLoss, longest: int) -> float:
    """What one forward keeps for its backward, per token, on a short Pack."""
    small = made_up_pack([min(256, longest)], vocab_size=loss.head.vocab_size)
    return activation_bytes_per_token(loss, small)


def _worth_trying(layout: Callable[[int], Sequence[Weight]], room: int) -> list[int]:
    """The budgets that fit, up to the first that holds every step in as few Packs as any would."""
    largest = max(pack.tokens for pack in layout(2**31))
    useful = next((b for b in BUDGETS if b >= largest), BUDGETS[-1])
    return [b for b in BUDGETS if b <= min(room, useful)] or [min(BUDGETS[0], room)]


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

    def timed(tokens: int, row_tokens: int, times: int) -> tuple[Weight, float]:
        pack = made_up_pack(
            _rows(tokens, row_tokens),
            vocab_size=loss.head.vocab_size,
            predictions=round(tokens * share),
        )
        seconds = min(stage.seconds(pack) for _ in range(times))
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


def _choose(
    budgets: Sequence[int],
    speeds: Speeds,
    layout: Callable[[int], Sequence[Weight]],
    *,
    wanted: int | None,
    device: torch.device,
) -> tuple[int, str]:
    if wanted is not None:
        return wanted, "as set"
    if device.type == "cuda":
        return budgets[0], "the largest that fits"
    return cheapest(budgets, speeds, layout), "the fastest here, sharing counted"


def _try_worst(stage: _Stage, budget: int, *, longest: int) -> tuple[int, float]:
    """One forward and backward of the worst Pack, and its seconds; halves the budget while memory runs out.

    Attention keeps as much for a token of a short row as for one of a long row, so one row is the longest.
    The head holds one chunk of logits at a time, so two chunks need what a thousand would.
    """
    vocab = stage.loss.head.vocab_size
    chunks = 2 * max(1, CHUNK_BYTES // (4 * vocab))
    while True:
        worst = max(budget, longest)
        rows = [longest, *_rows(worst - longest, min(_SHORT_ROW, longest))]
        pack = made_up_pack(rows, vocab_size=vocab, predictions=min(worst, chunks))
        seconds = _try(stage, pack)
        if seconds is not None:
            return budget, seconds
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


def _try(stage: _Stage, pack: Pack) -> float | None:
    """Seconds of a Pack; None where memory ran out on any rank that the others do not wait for."""
    strategy, fits, start = stage.strategy, True, time.perf_counter()
    try:
        strategy.backward(pack, 1.0, last=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fits = False
    seconds = time.perf_counter() - start
    if not fits and not strategy.redoes:
        return None
    strategy.discard()
    gc.collect()
    fits, seconds = not strategy.ranks.any(not fits), strategy.ranks.most(seconds)
    return seconds if fits else None
