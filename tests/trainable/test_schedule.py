"""The rates of a whole training, against the formulas and against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.errors import ConfigError
from hone.trainable.schedule import create_lr_schedule, warmup_of


def test_a_warmup_reaches_the_peak_twice_and_the_last_step_is_at_the_floor() -> None:
    rates = create_lr_schedule(10, 1e-4, "linear", warmup_steps=2)
    assert rates[:3] == [5e-5, 1e-4, 1e-4]
    assert rates[3] == pytest.approx(8.571428571e-5)
    assert rates[8] == pytest.approx(1.428571428e-5)
    assert rates[9] == 0.0


def test_a_warmup_longer_than_the_training_never_reaches_the_peak() -> None:
    assert create_lr_schedule(5, 1e-4, warmup_steps=10) == pytest.approx(
        [1e-5, 2e-5, 3e-5, 4e-5, 5e-5]
    )


def test_one_step_is_at_the_peak() -> None:
    for method in ("linear", "cosine", "constant"):
        assert create_lr_schedule(1, 3e-4, method) == [3e-4]  # type: ignore[arg-type]


def test_no_steps_have_no_rates() -> None:
    assert create_lr_schedule(0, 1e-4) == create_lr_schedule(-3, 1e-4) == []


@given(
    total=st.integers(1, 60),
    warmup=st.integers(0, 70),
    peak=st.floats(1e-6, 1.0),
    floor=st.floats(0, 1e-6),
    method=st.sampled_from(["linear", "cosine", "constant"]),
)
def test_every_rate_is_the_formula(
    total: int, warmup: int, peak: float, floor: float, method: str
) -> None:
    rates = create_lr_schedule(total, peak, method, warmup_steps=warmup, min_lr=floor)  # type: ignore[arg-type]
    assert len(rates) == total
    for s, rate in enumerate(rates):
        if s < warmup:
            expected = floor + (peak - floor) * (s + 1) / warmup
        else:
            left = total - warmup
            p = (s - warmup) / (left - 1) if left > 1 else 0.0
            expected = {
                "linear": peak - (peak - floor) * p,
                "cosine": floor + (peak - floor) * (1 + math.cos(math.pi * p)) / 2,
                "constant": peak,
            }[method]
        assert rate == pytest.approx(expected, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("total", [0, 1, 5])
def test_an_unknown_schedule_is_refused_with_the_nearest(total: int) -> None:
    with pytest.raises(ValueError, match="unknown schedule 'liner'") as caught:
        create_lr_schedule(total, 1e-4, "liner", warmup_steps=9)  # type: ignore[arg-type]
    assert isinstance(caught.value, ConfigError)
    assert "did you mean 'linear'" in str(caught.value.remedy)


@pytest.mark.parametrize("rate", [-1e-4, math.nan, math.inf, True, "1e-4"])
def test_a_rate_that_is_none_is_refused(rate: object) -> None:
    with pytest.raises(ConfigError, match="peak_lr"):
        create_lr_schedule(3, rate)  # type: ignore[arg-type]


def test_warmup_is_rounded_down_and_an_endless_one_is_told() -> None:
    assert warmup_of(250, 0.04) == 10
    assert warmup_of(9, 0.1) == 0
    with pytest.warns(UserWarning, match="never reaches peak_lr"):
        assert warmup_of(5, 2.0) == 10
    with pytest.raises(ConfigError, match="warmup_ratio"):
        warmup_of(5, -0.1)
