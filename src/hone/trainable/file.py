"""Rows of a JSONL file as trajectories, streamed in an order that a seed names, and one training over them."""

from __future__ import annotations

import math
import sys
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from hone.data.conversation import Conversation
from hone.data.formats import RowFormat
from hone.data.reader import RowReader
from hone.errors import DataError
from hone.trainable.schedule import ScheduleType, check_count, create_lr_schedule, warmup_of
from hone.trainable.settings import TrainSFTConfig, resolve_sft_batch_size
from hone.trainable.trajectory import Trajectory

if TYPE_CHECKING:
    from hone.trainable.model import SFTResult, TrainableModel

_SEED = 42


async def train_sft_from_file(
    model: TrainableModel,
    file_path: str | Path,
    epochs: int = 1,
    batch_size: int | Literal["auto"] = 2,
    peak_lr: float = 2e-4,
    schedule_type: ScheduleType = "linear",
    warmup_ratio: float = 0.1,
    initial_step: int = 0,
    final_step: int | None = None,
    _config: object = None,
    verbose: bool = False,
    shuffle_buffer_size: int = 10_000,
    log_metrics: bool = True,
    assistant_turns: Literal["all", "last"] = "all",
) -> SFTResult | None:
    """Train on a file of rows in one call, so that one checkpoint comes of it.

    The schedule is over all of ceil(rows * epochs / batch_size) gradient steps; `initial_step` and `final_step`
    (exclusive) choose a part of them, whose rates and rows are those of the whole. Batches may cross from one
    epoch to the next. None where nothing is left to train. Raises DataError with file and line.
    """
    batch = resolve_sft_batch_size(batch_size)
    check_count(epochs, "epochs")
    check_count(initial_step, "initial_step", least=0)
    if final_step is not None:
        check_count(final_step, "final_step", least=0)
    total = math.ceil(get_file_row_count(file_path) * epochs / batch)
    warmup = warmup_of(total, warmup_ratio)
    rates = create_lr_schedule(total, peak_lr, method=schedule_type, warmup_steps=warmup)
    rates = rates[initial_step:final_step]
    if not rates:
        if verbose:
            why = "it has no rows" if not total else f"all {total} gradient steps lie before it"
            sys.stderr.write(f"nothing to train in {file_path}: {why}\n")
        return None
    config = TrainSFTConfig(learning_rate=rates, batch_size=batch, assistant_turns=assistant_turns)
    rows = iterate_file(
        file_path, epochs, shuffle_buffer_size, seed=_SEED, initial_skip=initial_step * batch
    )
    part = islice(rows, len(rates) * batch)
    return await model.train_sft(
        part, config, _config=_config, verbose=verbose, log_metrics=log_metrics
    )


def iterate_file(
    file_path: str | Path,
    epochs: int = 1,
    shuffle_buffer_size: int = 10_000,
    seed: int = _SEED,
    initial_skip: int = 0,
) -> Iterator[Trajectory]:
    """The rows of all epochs, each shuffled through a buffer seeded by `seed` + epoch, without the first ones.

    While the buffer is full each row that is read pushes out one drawn at random; what is left at an epoch's end
    is shuffled. So the order is the same wherever the stream begins. Memory: the buffer.
    """
    _check_name(file_path)
    check_count(shuffle_buffer_size, "shuffle_buffer_size")
    check_count(initial_skip, "initial_skip", least=0)
    rows = (
        row
        for epoch in range(epochs)
        for row in _epoch(file_path, shuffle_buffer_size, seed + epoch)
    )
    return islice(rows, initial_skip, None)


def get_file_row_count(file_path: str | Path) -> int:
    """Rows of the file; blank lines are none. Raises DataError for a line that is no JSON object."""
    _check_name(file_path)
    return 0 if _is_blank(Path(file_path)) else sum(1 for _ in RowReader(file_path))


def _epoch(file_path: str | Path, buffer_size: int, seed: int) -> Generator[Trajectory]:
    random = Random(seed)
    buffer: list[Trajectory] = []
    for row in _rows(file_path):
        buffer.append(row)
        if len(buffer) >= buffer_size:
            yield buffer.pop(random.randint(0, len(buffer) - 1))
    random.shuffle(buffer)
    yield from buffer


def _rows(file_path: str | Path) -> Generator[Trajectory]:
    form = RowFormat()
    for row in RowReader(file_path):
        read: Any = form.read(row)
        if not isinstance(read, Conversation):
            raise DataError(
                f"rows of shape {form.shape!r} are no conversations",
                where=str(row.origin),
                remedy='write {"messages": [...]}, or train on the file with `hone train`',
            )
        yield Trajectory.of(read)


def _is_blank(path: Path) -> bool:
    """Whether a file that is there has nothing but space in it."""
    if not path.is_file():
        return False  # what reads it says what is wrong
    with path.open("rb") as file:
        return all(not line.strip() for line in file)


def _check_name(file_path: str | Path) -> None:
    if Path(file_path).suffix != ".jsonl":
        raise DataError(
            "only .jsonl files are streamed",
            where=str(file_path),
            remedy="hone convert writes rows of other files as JSONL",
        )
