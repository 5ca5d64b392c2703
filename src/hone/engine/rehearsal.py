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
from hone.engine.loss import CHUNK_BYTES, PackLoss
from hone.engine.room import activation_bytes_per_token, available_bytes
from hone.errors import OutOfMemory
from hone.pack import Pack

BUDGETS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
_TRIAL_SECONDS = 2.0  # no trial Pack is expected to take longer than this
_KEEP_FREE = 0.25  # share of the free memory that is left alone


@dataclass(frozen=True)
class Rehearsed:
    """What was measured, and the budget that it led to."""

    micro_batch_tokens: int
    bytes_per_token: float
    available_bytes: int
    seconds_per_token: dict[int, float]  # by Pack size in tokens
    reason: str


def made_up_pack(
    tokens: int, *, row_tokens: int, vocab_size: int, predictions: int | None = None
) -> Pack:
    """A Pack of `tokens` tokens in rows of `row_tokens`, with predictions at its last places (all: None)."""
    ids = np.arange(1, tokens + 1, dtype=np.int64) * 7919 % vocab_size
    starts = np.arange(0, tokens, row_tokens)
    ends = np.append(starts[1:], tokens)
    lengths = ends - starts
    first = np.repeat(starts, lengths)
    last = np.repeat(ends, lengths)
    places = np.arange(tokens)
    predict = places if predictions is None else places[-max(1, predictions) :]
    return Pack(
        input_ids=ids,
        position_ids=(places - first).astype(np.int64),
        visible_until=last.astype(np.int64),
        predict=predict.astype(np.int64),
        source=np.arange(predict.shape[0], dtype=np.int64),
        target=np.roll(ids, -1)[predict],
        weight=np.ones(predict.shape[0], dtype=np.float32),
        row=np.repeat(np.arange(starts.shape[0], dtype=np.int32), lengths)[predict],
    )


def rehearse(
    loss: PackLoss,
    *,
    longest: int,
    typical: int,
    wanted: int | None,
    state_bytes: int,
    trained_share: float,
    computed_tokens: Callable[[int], int],
    largest_step: int,
) -> Rehearsed:
    """Choose `micro_batch_tokens` (or check the `wanted` one) and try the worst Pack once.

    `longest` and `typical` are row lengths in tokens, `trained_share` is how many of them are predicted; `state_bytes` is what gradients and optimizer
    will still allocate; `computed_tokens(budget)` is what the data's own steps would compute in Packs
    of that budget, relative to other budgets; `largest_step` is what its largest step would compute in
    one Pack, beyond which no budget helps. Raises OutOfMemory where not even the longest row fits.
    """
    device = loss.head.device
    small = made_up_pack(
        min(256, longest), row_tokens=min(256, longest), vocab_size=loss.head.vocab_size
    )
    per_token = activation_bytes_per_token(loss, small)
    free = available_bytes(device)
    room = int((free * (1 - _KEEP_FREE) - state_bytes) / max(1.0, per_token))
    if longest > room:
        raise OutOfMemory(
            f"the longest row has {longest} tokens; about {max(0, room)} fit in the free memory "
            f"({free / 2**30:.1f} GiB at {per_token / 2**10:.0f} KiB a token)",
            remedy="set compute.gradient_checkpointing=true, or data.max_length with "
            "data.too_long=drop, or a smaller model",
        )
    if not loss.shared:  # each row is a Pack of its own, whatever the budget
        _try_worst(loss, longest, longest=longest)
        return Rehearsed(longest, per_token, free, {}, "rows run one at a time")
    if wanted is not None:
        budgets: Sequence[int] = (wanted,)
    elif device.type == "cuda":
        budgets = [max(b for b in BUDGETS if b <= max(room, BUDGETS[0]))]
    else:
        useful = next((b for b in BUDGETS if b >= largest_step), BUDGETS[-1])
        budgets = [b for b in BUDGETS if b <= min(room, useful)] or [min(BUDGETS[0], room)]
    speeds = _speeds(loss, budgets, typical=min(typical, longest), share=trained_share)
    budget, reason = _choose(budgets, speeds, computed_tokens, wanted=wanted, device=device)
    budget = _try_worst(loss, budget, longest=longest)
    return Rehearsed(budget, per_token, free, speeds, reason)


def _speeds(
    loss: PackLoss, budgets: Sequence[int], *, typical: int, share: float
) -> dict[int, float]:
    """Seconds per token of forward and backward, by Pack size, as far as trials stay short."""
    speeds: dict[int, float] = {}
    for budget in budgets:
        guess = speeds[max(speeds)] * budget if speeds else 0.0
        if guess > _TRIAL_SECONDS:
            break
        pack = made_up_pack(
            budget,
            row_tokens=max(1, typical),
            vocab_size=loss.head.vocab_size,
            predictions=round(budget * share),
        )
        seconds = min(_seconds(loss, pack) for _ in range(2 if guess < 1.0 else 1))
        speeds[budget] = seconds / budget
        if len(budgets) == 1:
            break
    return speeds


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
    speeds: dict[int, float],
    computed_tokens: Callable[[int], int],
    *,
    wanted: int | None,
    device: torch.device,
) -> tuple[int, str]:
    if wanted is not None:
        return wanted, "as set"
    if device.type == "cuda":
        return budgets[0], "the largest that fits"
    last = speeds[max(speeds)]
    cost = {b: computed_tokens(b) * speeds.get(b, last) for b in budgets}
    # A larger Pack must win by more than a trial's noise, else the smaller keeps memory free.
    best = min(cost.values())
    chosen = min(b for b in budgets if cost[b] <= best * 1.02)
    return chosen, "the fastest here, sharing counted"


def _try_worst(loss: PackLoss, budget: int, *, longest: int) -> int:
    """One forward and backward of the worst Pack; halves the budget while memory runs out.

    The head holds one chunk of logits at a time, so two chunks need what a thousand would.
    """
    vocab = loss.head.vocab_size
    chunks = 2 * max(1, CHUNK_BYTES // (4 * vocab))
    while True:
        worst = max(budget, longest)
        pack = made_up_pack(
            worst, row_tokens=longest, vocab_size=vocab, predictions=min(worst, chunks)
        )
        try:
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
            return budget
