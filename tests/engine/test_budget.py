"""Budgets: replayed as stored, only ever lowered, never below an Example that stands alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hone.engine.budget import Budgets, halved, is_out_of_memory
from hone.errors import OutOfMemory


def test_the_least_budget_that_has_begun_is_in_force() -> None:
    budgets = Budgets([(1, 8000), (70, 4000)])
    assert [budgets.at(step) for step in (1, 69, 70, 100)] == [8000, 8000, 4000, 4000]
    budgets.lower(60, 2000)
    assert [budgets.at(step) for step in (59, 60, 70)] == [8000, 2000, 2000]
    assert budgets.entries == ((1, 8000), (70, 4000), (60, 2000))


def test_a_budget_must_hold_from_the_first_step() -> None:
    with pytest.raises(ValueError, match="step 1"):
        Budgets([(2, 100)])


def test_halving_goes_below_the_largest_pack_at_once() -> None:
    assert halved(16_000, largest_pack=16_000, longest_example=100) == 8000
    assert halved(16_000, largest_pack=3000, longest_example=100) == 2000
    assert halved(16_000, largest_pack=3000, longest_example=2900) == 2900
    assert halved(16_000, largest_pack=3000, longest_example=3000) is None
    assert halved(100, largest_pack=3000, longest_example=3000) is None


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_halving_ends_and_always_changes_the_layout(budget: int, pack: int, example: int) -> None:
    lower = halved(budget, largest_pack=pack, longest_example=example)
    if pack <= example:
        assert lower is None
    else:
        assert lower is not None
        assert example <= lower < pack


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (OutOfMemory("judged already"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_allocators_own_message_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
