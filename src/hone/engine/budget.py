"""The token budget of Packs, and its halving when memory runs out. It knows no model and no file."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hone.engine.ahead import Source
from hone.errors import HoneError, OutOfMemory
from hone.pack import Step

_SIGNS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


class Budgets:
    """The budget in force at each step: the least of the entries (from_step, tokens) that have begun.

    Steps count from 1. Halvings only ever lower it, and a list replayed from the same entries gives the
    same budgets.
    """

    def __init__(self, entries: Sequence[tuple[int, int]]) -> None:
        if not any(first <= 1 for first, _ in entries):
            raise ValueError("budgets: one entry must hold from step 1 on")
        self._entries = list(entries)

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        """As given, and the halvings since."""
        return tuple(self._entries)

    def at(self, step: int) -> int:
        """Most tokens in one Pack of this step."""
        return min(tokens for first, tokens in self._entries if first <= step)

    def lower(self, from_step: int, tokens: int) -> None:
        """From this step on, at most so many tokens."""
        self._entries.append((from_step, tokens))


def halved(budget: int, *, largest_pack: int, longest_example: int) -> int | None:
    """The next budget after `budget` ran out of memory; None where every Example stands alone already.

    It is halved until it is below the largest Pack (before that the layout would stay as it is), but not
    below the longest Example, which stands alone at any budget.
    """
    if largest_pack <= longest_example:
        return None
    lower = budget
    while lower >= largest_pack:
        lower //= 2
    return max(lower, longest_example)


def smaller_budget(source: Source, step: Step, budget: int, *, from_step: int) -> int:
    """The budget after one at which `step` ran out of memory. Raises OutOfMemory where there is none."""
    alone = source.step(step.index, 1).packs
    longest = max(alone, key=lambda pack: pack.num_tokens)
    lower = halved(
        budget,
        largest_pack=max(pack.num_tokens for pack in step.packs),
        longest_example=longest.num_tokens,
    )
    if lower is None:
        raise OutOfMemory(
            f"out of memory in step {from_step} with every Example alone; the longest has "
            f"{longest.num_tokens:,} tokens",
            where=step.row_names[int(longest.row[0])],
            remedy="lower data.max_length, set compute.gradient_checkpointing=true, take "
            "tuning.method=lora or a smaller model, or free memory on this machine",
        )
    return lower


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a CPU or a GPU."""
    if isinstance(error, HoneError):
        return False  # somebody has judged it already
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
