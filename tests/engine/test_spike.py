"""A jump of the loss is told once, when it begins; what is usual is not."""

from __future__ import annotations

import numpy as np
import pytest

from hone.engine.spike import SpikeWatch


def told(losses: list[float]) -> list[int]:
    watch = SpikeWatch()
    return [i for i, loss in enumerate(losses) if watch.take(loss) is not None]


def test_a_jump_is_told_with_what_is_usual() -> None:
    watch = SpikeWatch()
    for _ in range(30):
        assert watch.take(1.0) is None
    assert watch.take(4.0) == 1.0


def test_it_is_told_once_and_again_after_it_was_over() -> None:
    assert told([1.0] * 30 + [5.0, 6.0, 5.0] + [1.0] * 10 + [5.0]) == [30, 43]


def test_nothing_is_unusual_before_there_is_a_usual() -> None:
    assert told([1.0] * 10 + [50.0]) == []


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_a_falling_loss_are_usual(seed: int) -> None:
    rng = np.random.default_rng(seed)
    falling = [float(5 * np.exp(-i / 80) + 0.3 + rng.normal(0, 0.15)) for i in range(400)]
    assert told(falling) == []
    small_batches = [float(loss) for loss in rng.gamma(4.0, 0.25, 400)]
    assert len(told(small_batches)) <= 4
