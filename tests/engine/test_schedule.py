"""The learning rate: its documented formula, and what holds for any numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.engine.plan import Plan
from hone.engine.schedule import DecayShape, Schedule, ScheduleName, share_of_steps

NAMES: tuple[ScheduleName, ...] = ("linear", "cosine", "constant", "wsd")
SHAPES: tuple[DecayShape, ...] = ("linear", "cosine", "sqrt")


def rates(schedule: Schedule) -> list[float]:
    return [schedule.rate(step) for step in range(schedule.steps)]


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    steps = draw(st.integers(1, 400))
    return Schedule(
        peak=draw(st.floats(1e-8, 10)),
        steps=steps,
        name=draw(st.sampled_from(NAMES)),
        warmup=draw(st.integers(0, steps)),
        floor=draw(st.floats(0, 1)),
        decay=draw(st.integers(1, steps)),
        shape=draw(st.sampled_from(SHAPES)),
    )


def test_the_formula_by_hand() -> None:
    assert rates(Schedule(1.0, 4, "linear")) == [1.0, 0.75, 0.5, 0.25]
    assert rates(Schedule(1.0, 4, "constant")) == [1.0] * 4
    assert rates(Schedule(1.0, 2, "cosine")) == pytest.approx([1.0, 0.5])
    assert rates(Schedule(1.0, 6, "linear", warmup=3)) == pytest.approx(
        [1 / 4, 2 / 4, 3 / 4, 1.0, 2 / 3, 1 / 3]
    )
    assert rates(Schedule(2.0, 4, "cosine", warmup=1)) == pytest.approx(
        [1.0, 2.0, 1 + math.cos(math.pi / 3), 1 + math.cos(2 * math.pi / 3)]
    )
    assert rates(Schedule(1.0, 4, "linear", floor=0.2)) == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert rates(Schedule(1.0, 7, "wsd", warmup=1, decay=4, shape="linear")) == pytest.approx(
        [1 / 2, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    )
    assert rates(Schedule(1.0, 6, "wsd", decay=4, shape="sqrt", floor=0.1)) == pytest.approx(
        [1.0, 1.0, *(0.1 + 0.9 * (1 - math.sqrt(done / 4)) for done in range(4))]
    )


def test_shares_are_rounded_up_but_not_by_the_last_bit() -> None:
    assert share_of_steps(100, 0.07) == 7
    assert share_of_steps(10, 0.03) == 1
    assert share_of_steps(10, 0.0) == 0
    assert share_of_steps(3, 1.0) == 3


@given(schedules())
def test_properties(schedule: Schedule) -> None:
    """It rises in the warmup, is at the peak right after it, never rises again, and keeps to its floor."""
    course = rates(schedule)
    assert all(0 < rate <= schedule.peak for rate in course)
    rise, fall = course[: schedule.warmup + 1], course[schedule.warmup :]
    assert all(a < b for a, b in pairwise(rise))
    assert all(a >= b for a, b in pairwise(fall))
    assert all(rate >= schedule.peak * schedule.floor * (1 - 1e-12) for rate in fall)
    if fall:
        assert fall[0] == schedule.peak


@given(schedules())
def test_wsd_stays_at_the_peak_until_its_decay(schedule: Schedule) -> None:
    wsd = Schedule(**{**vars(schedule), "name": "wsd"})
    fall = rates(wsd)[wsd.warmup :]
    stable = max(0, len(fall) - wsd.decay)
    assert fall[:stable] == [wsd.peak] * stable
    if wsd.floor < 0.9:
        assert all(rate < wsd.peak for rate in fall[stable + 1 :])


@given(schedules(), st.sampled_from(("linear", "cosine")))
def test_wsd_that_decays_all_the_way_is_its_shape(schedule: Schedule, shape: DecayShape) -> None:
    plain = {**vars(schedule), "decay": schedule.steps, "shape": shape}
    assert rates(Schedule(**{**plain, "name": "wsd"})) == rates(
        Schedule(**{**plain, "name": shape})
    )


@given(schedules())
def test_a_floor_of_the_peak_is_constant(schedule: Schedule) -> None:
    high = Schedule(**{**vars(schedule), "floor": 1.0})
    assert rates(high)[high.warmup :] == [high.peak] * (high.steps - high.warmup)


@given(schedules())
def test_a_step_outside_the_run_has_no_rate(schedule: Schedule) -> None:
    for step in (-1, schedule.steps):
        with pytest.raises(ValueError, match="not one of"):
            schedule.rate(step)


def test_a_plan_takes_its_warmup_in_steps_or_as_a_share() -> None:
    common = {"steps": 20, "learning_rate": 1.0, "budgets": ((1, 9),)}
    assert Plan(**common, warmup_ratio=0.1).course.warmup == 2  # type: ignore[arg-type]
    assert Plan(**common, warmup_ratio=0.1, warmup_steps=5).course.warmup == 5  # type: ignore[arg-type]
    assert Plan(**common, warmup_ratio=0.1, warmup_steps=0).course.rate(0) == 1.0  # type: ignore[arg-type]
    plan = Plan(**common, schedule="wsd", decay_ratio=0.25, min_learning_rate_ratio=0.5)  # type: ignore[arg-type]
    assert (plan.course.decay, plan.course.floor) == (5, 0.5)
