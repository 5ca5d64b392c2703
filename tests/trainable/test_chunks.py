"""A training cut into chunks: rates over all of them, and what a resumed stream is."""

from __future__ import annotations

import math
from itertools import product
from random import Random
from typing import Any, NamedTuple

import pytest

from hone.errors import ConfigError
from hone.trainable.chunks import SFTChunk, create_sft_dataset_iterator
from hone.trainable.schedule import create_lr_schedule
from hone.trainable.trajectory import Trajectory

ROWS = [Trajectory(metadata={"row": row}) for row in range(40)]


class Batch(NamedTuple):
    rows: tuple[int, ...]
    rate: float
    step: int
    epoch: int
    epoch_step: int
    ends_chunk: bool


def chunks(n: int, *, batch: int, size: int, epochs: int, **more: Any) -> list[SFTChunk]:
    return list(
        create_sft_dataset_iterator(
            ROWS[:n], chunk_size=size, epochs=epochs, batch_size=batch, show_progress=False, **more
        )
    )


def batches(stream: list[SFTChunk], batch: int) -> list[Batch]:
    """The stream batch by batch, with where each stands."""
    found: list[Batch] = []
    for chunk in stream:
        rows = [one.metadata["row"] for one in chunk.trajectories]
        rates = chunk.config.learning_rate
        assert isinstance(rates, list)
        assert len(rates) == math.ceil(len(rows) / batch)
        for i, rate in enumerate(rates):
            found.append(
                Batch(
                    tuple(rows[i * batch : (i + 1) * batch]),
                    rate,
                    chunk.step + i,
                    chunk.epoch,
                    chunk.epoch_step + i,
                    i == len(rates) - 1,
                )
            )
    return found


def check_suffixes(n: int, batch: int, size: int, epochs: int, shuffle: bool) -> None:
    settings = {"batch": batch, "size": size, "epochs": epochs, "shuffle": shuffle}
    whole = batches(chunks(n, **settings), batch)  # type: ignore[arg-type]
    total = math.ceil(n / batch) * epochs
    assert [one.step for one in whole] == list(range(total))
    for start in range(total + 2):
        rest = batches(chunks(n, **settings, initial_step=start), batch)  # type: ignore[arg-type]
        assert rest == whole[start:]


# Sizes at which something can go wrong: around each other's multiples. All of them: `make prove`.
SOME = [1, 2, 3, 5, 6, 11, 12, 40]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n", SOME)
def test_a_resumed_stream_is_the_exact_rest(n: int, shuffle: bool) -> None:
    sizes = (1, 2, 3, 7) if n < 40 else (3, 7)
    for batch, size, epochs in product((1, 2, 5), sizes, (1, 3)):
        check_suffixes(n, batch, size, epochs, shuffle)


@pytest.mark.slow
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n", range(1, 41))
def test_a_resumed_stream_is_the_exact_rest_for_every_size(n: int, shuffle: bool) -> None:
    for batch, size, epochs in product(range(1, 6), range(1, 8), range(1, 4)):
        check_suffixes(n, batch, size, epochs, shuffle)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_rates_over_all_chunks_are_the_whole_schedule(schedule: str) -> None:
    for n, batch, size, epochs, ratio in product(
        (1, 5, 17), (1, 2, 4), (1, 3, 10), (1, 3), (0, 0.1, 0.5)
    ):
        stream = chunks(
            n, batch=batch, size=size, epochs=epochs, warmup_ratio=ratio, schedule_type=schedule
        )
        total = math.ceil(n / batch) * epochs
        rates = [rate for chunk in stream for rate in chunk.config.learning_rate]  # type: ignore[union-attr]
        assert rates == create_lr_schedule(total, 2e-4, schedule, int(total * ratio))  # type: ignore[arg-type]


def test_a_chunk_ends_where_its_epoch_ends() -> None:
    stream = chunks(5, batch=2, size=2, epochs=2)
    assert [chunk.step for chunk in stream] == [0, 2, 3, 5]
    assert [chunk.epoch_step for chunk in stream] == [0, 2, 0, 2]
    assert [len(chunk.trajectories) for chunk in stream] == [4, 1, 4, 1]
    assert [chunk.step for chunk in chunks(5, batch=2, size=2, epochs=2, initial_step=3)] == [3, 5]
    assert chunks(5, batch=2, size=2, epochs=2, initial_step=6) == []


def test_each_epoch_has_the_order_of_its_seed() -> None:
    stream = chunks(6, batch=2, size=3, epochs=2, seed=7)
    for epoch, chunk in enumerate(stream):
        expected = list(range(6))
        Random(7 + epoch).shuffle(expected)
        assert [one.metadata["row"] for one in chunk.trajectories] == expected


def test_no_rows_give_no_chunks() -> None:
    assert chunks(0, batch=2, size=2, epochs=3) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunk_size": 0},
        {"batch_size": 0},
        {"epochs": 0},
        {"initial_step": -1},
        {"schedule_type": "linaer"},
        {"warmup_ratio": math.nan},
        {"peak_lr": -1.0},
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        create_sft_dataset_iterator(ROWS[:3], show_progress=False, **wrong)
