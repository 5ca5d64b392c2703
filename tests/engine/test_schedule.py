"""The learning rate: its documented formula, and what holds for any numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.engine.schedule import ScheduleName, learning_rate_at, warmup_steps

NAMES: tuple[ScheduleName, ...] = ("linear", "cosine", "constant")


def rates(
    steps: int, schedule: ScheduleName, warmup_ratio: float, peak: float = 1.0
) -> list[float]:
    return [
        learning_rate_at(step, steps=steps, peak=peak, schedule=schedule, warmup_ratio=warmup_ratio)
        for step in range(steps)
    ]


def test_the_formula_by_hand() -> None:
    assert rates(4, "linear", 0.0) == [1.0, 0.75, 0.5, 0.25]
    assert rates(4, "constant", 0.0) == [1.0] * 4
    assert rates(2, "cosine", 0.0) == pytest.approx([1.0, 0.5])
    assert rates(6, "linear", 0.5) == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1.0, 2 / 3, 1 / 3])
    assert rates(4, "cosine", 0.25, peak=2.0) == pytest.approx(
        [1.0, 2.0, 1 + math.cos(math.pi / 3), 1 + math.cos(2 * math.pi / 3)]
    )


def test_warmup_is_rounded_up_but_not_by_the_last_bit() -> None:
    assert warmup_steps(100, 0.07) == 7
    assert warmup_steps(10, 0.03) == 1
    assert warmup_steps(10, 0.0) == 0
    assert warmup_steps(3, 1.0) == 3


@given(
    steps=st.integers(1, 400),
    schedule=st.sampled_from(NAMES),
    warmup_ratio=st.floats(0, 1),
    peak=st.floats(1e-8, 10),
)
def test_properties(steps: int, schedule: ScheduleName, warmup_ratio: float, peak: float) -> None:
    """Every step learns, none above the peak; it rises, stands at the peak once, and never rises again."""
    course = rates(steps, schedule, warmup_ratio, peak)
    warmup = warmup_steps(steps, warmup_ratio)
    assert all(0 < rate <= peak for rate in course)
    assert all(a < b for a, b in pairwise(course[: warmup + 1]))
    assert all(a >= b for a, b in pairwise(course[warmup:]))
    if warmup < steps:
        assert course[warmup] == peak


@given(steps=st.integers(1, 50), schedule=st.sampled_from(NAMES), warmup_ratio=st.floats(0, 1))
def test_a_step_outside_the_run_has_no_rate(
    steps: int, schedule: ScheduleName, warmup_ratio: float
) -> None:
    for step in (-1, steps):
        with pytest.raises(ValueError, match="not one of"):
            learning_rate_at(
                step, steps=steps, peak=1.0, schedule=schedule, warmup_ratio=warmup_ratio
            )
