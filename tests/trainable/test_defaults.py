"""The values that the wizard offers, against its own table."""

from __future__ import annotations

import math

import pytest

from hone.errors import DataError
from hone.trainable.defaults import default_hyperparameters

TABLE = [
    (1, 10, 5, 2.0),
    (2, 10, 10, 1.0),
    (3, 10, 15, 0.6667),
    (5, 10, 25, 0.4),
    (50, 10, 250, 0.04),
    (100, 10, 500, 0.02),
    (1000, 10, 5000, 0.005),
    (1500, 7, 5250, 0.0072),
    (2500, 4, 5000, 0.0124),
    (5000, 2, 5000, 0.025),
    (10000, 1, 5000, 0.05),
    (50000, 1, 25000, 0.04),
]


@pytest.mark.parametrize(("rows", "epochs", "steps", "ratio"), TABLE)
def test_table(rows: int, epochs: int, steps: int, ratio: float) -> None:
    found = default_hyperparameters(rows)
    assert (found.epochs, found.batch_size, found.warmup_ratio) == (epochs, 2, ratio)
    assert (found.peak_lr, found.schedule_type) == (2e-4, "linear")
    assert math.ceil(rows * found.epochs / found.batch_size) == steps


def test_half_epochs_are_rounded_to_even() -> None:
    assert default_hyperparameters(4000).epochs == 2


def test_no_rows_are_an_error_and_no_division() -> None:
    with pytest.raises(DataError, match="no rows"):
        default_hyperparameters(0)
