"""Rates, what sharing saves, and time left, from events and a clock of the test's own."""

from __future__ import annotations

import pytest

from hone.cli.progress import Progress
from tests.cli.recorded import event, run, step


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_claimed_before_anything_happened() -> None:
    here = Progress()
    assert (here.tokens_per_second, here.saved_share, here.eta_seconds, here.loss) == (None,) * 4


def test_rates_and_shared_part() -> None:
    here = Progress()
    for each in run():
        here.take(each)
    assert here.step == here.steps == 40
    assert here.tokens_per_second == pytest.approx(2000)
    assert here.trained_tokens_per_second == pytest.approx(500)
    assert here.saved_share == pytest.approx(0.6)
    assert here.held_out_loss == 0.75
    assert here.phase == "saving"
    assert here.eta_seconds == 0


def test_time_left_counts_what_lies_between_steps() -> None:
    clock = Clock()
    here = Progress(clock=clock)
    for number in range(1, 11):
        clock.now += 2.0  # a step's own 0.5 s, and as long again and more for saving
        here.take(step(number, steps=100))
    assert here.eta_seconds == pytest.approx(90 * 2.0)
    clock.now += 1.5
    assert here.eta_seconds == pytest.approx(90 * 2.0 - 1.5)
    clock.now += 1e6
    assert here.eta_seconds == 0


def test_time_left_after_one_step_and_after_a_resume() -> None:
    clock = Clock()
    here = Progress(clock=clock)
    here.take(event("resumed", step=50))
    assert here.step == 50
    here.take(step(51, steps=100))
    assert here.eta_seconds == pytest.approx(49 * 0.5)
    clock.now += 3.0
    here.take(step(52, steps=100))
    assert here.eta_seconds == pytest.approx(48 * 3.0)
