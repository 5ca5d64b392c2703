"""The hyperparameters that are offered: ART's table, to the digit."""

from __future__ import annotations

import pytest

from hone.errors import DataError
from hone.wizard.defaults import gradient_steps, hyperparameters

# rows, epochs, gradient steps, warmup_ratio
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


@pytest.mark.parametrize(("rows", "epochs", "steps", "warmup_ratio"), TABLE)
def test_the_table(rows: int, epochs: int, steps: int, warmup_ratio: float) -> None:
    found = hyperparameters(rows)
    assert (found.epochs, found.warmup_ratio) == (epochs, warmup_ratio)
    assert (found.batch_size, found.lr, found.schedule) == (2, 2e-4, "linear")
    assert gradient_steps("jsonl", rows, found.epochs, found.batch_size) == steps


def test_rounding_is_half_to_even() -> None:
    assert hyperparameters(4000).epochs == 2  # 2.5


def test_no_rows_are_an_error_and_no_division() -> None:
    with pytest.raises(DataError, match="no rows"):
        hyperparameters(0)


def test_batches_end_with_the_epoch_unless_they_stream_from_a_file() -> None:
    assert gradient_steps("jsonl", 5, 3, 2) == 8
    assert gradient_steps("distillation", 5, 3, 2) == 9
    assert gradient_steps("inline", 5, 1, 1) == 5
