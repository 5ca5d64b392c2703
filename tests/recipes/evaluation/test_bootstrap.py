"""The paired bootstrap: equal to drawing rows one by one, covering what it says, and narrow where pairs agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.recipes.evaluation.bootstrap import Draws, intervals, sums
from hone.recipes.evaluation.measure import exponential_mean, mean


def scores(values: list[float] | np.ndarray) -> np.ndarray:
    """Statistics of a mean."""
    return np.stack([np.asarray(values, dtype=float), np.ones(len(values))], axis=1)


@given(st.integers(1, 30), st.integers(0, 5))
def test_sums_are_those_of_rows_drawn_one_by_one(rows: int, seed: int) -> None:
    random = np.random.default_rng(seed + 1)
    first, second = random.normal(size=(rows, 2)), random.normal(size=(rows, 3))
    got = sums([first, second], Draws(20, seed))
    again = np.random.default_rng(seed)
    for b in range(20):
        drawn = again.integers(0, rows, rows)
        assert np.allclose(got[0][b], first[drawn].sum(axis=0))
        assert np.allclose(got[1][b], second[drawn].sum(axis=0))


def test_a_mean_s_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    one, _, _ = intervals(scores(values), None, mean, Draws(4000))
    error = values.std() / 20
    assert one.value == pytest.approx(values.mean())
    assert one.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert one.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        one, _, _ = intervals(scores(random.random(60) < 0.3), None, mean, Draws(400, trial))
        held += one.low <= 0.3 <= one.high
    assert 0.88 <= held / 200 <= 0.99


def test_pairs_make_a_small_steady_difference_certain() -> None:
    random = np.random.default_rng(2)
    base = random.normal(0, 5, 100)
    tuned = base + 0.1 + random.normal(0, 0.05, 100)
    first, second, between = intervals(scores(tuned), scores(base), mean, Draws())
    assert first.low < second.value < first.high, "apart they could be the same"
    assert between.excludes_zero
    assert between.value == pytest.approx(float(np.mean(tuned - base)))


def test_no_difference_is_not_made_one() -> None:
    values = np.random.default_rng(3).random(50)
    _, _, between = intervals(scores(values), scores(values), mean, Draws())
    assert (between.value, between.low, between.high) == (0, 0, 0)
    assert not between.excludes_zero


def test_answers_of_one_row_stay_together() -> None:
    """Ten answers of a row that always fare alike are one observation, not ten."""
    random = np.random.default_rng(4)
    good = (random.random(30) < 0.5).astype(float)
    together = np.stack([10 * good, np.full(30, 10.0)], axis=1)
    one, _, _ = intervals(together, None, mean, Draws())
    apart, _, _ = intervals(scores(np.repeat(good, 10)), None, mean, Draws())
    assert one.value == apart.value
    assert one.high - one.low > 2.5 * (apart.high - apart.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = scores(np.random.default_rng(5).random(20))
    assert intervals(values, None, mean, Draws(200, 7)) == intervals(
        values, None, mean, Draws(200, 7)
    )
    assert intervals(values, None, mean, Draws(200, 7)) != intervals(
        values, None, mean, Draws(200, 8)
    )


def test_what_cannot_be_said_is_none() -> None:
    nothing = np.zeros((3, 2))
    one, _, _ = intervals(nothing, None, mean, Draws(100))
    assert (one.value, one.low, one.high) == (None, None, None)


def test_perplexity_beyond_a_float_is_said_to_be_unknown() -> None:
    one, _, _ = intervals(scores([1e4, 1e4]), None, exponential_mean, Draws(100))
    assert one.value is None
