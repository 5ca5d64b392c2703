"""The rows of `history.jsonl`: from the events of one call of training, and from what a user logs.

A row of a gradient step has names that begin with `sft/`; the row of a whole call has the means of its steps. All
`data/` numbers are of the one step, or of the one call; those under `data/cum/` count from the model's beginning.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from hone.errors import DiskError

COUNTED: Final = (
    "num_trajectories",
    "trainer_tokens",
    "num_dropped_trajectories",
    "num_gradient_steps",
)
_OF_LOSS: Final = {
    "loss": "loss/train",
    "learning_rate": "loss/learning_rate",
    "grad_norm": "loss/grad_norm",
}

Row = dict[str, Any]


@dataclass
class CallRows:
    """The rows of one call, made while its events come in.

    `step` is the checkpoint that is being built, `totals` the counts before the call.
    """

    step: int
    totals: Mapping[str, float]
    _batches: Sequence[tuple[int, int]] = ()
    _before: dict[str, float] = field(default_factory=dict[str, float])
    _told: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def begin(self, batches: Sequence[tuple[int, int]], *, done: int, tokens: int) -> None:
        """`batches` are the trajectories given and dropped of each gradient step, of which `done` were trained before
        the call was broken off, with so many `tokens`."""
        self._batches = batches
        counts = (
            sum(given - dropped for given, dropped in batches[:done]),
            tokens,
            sum(dropped for _, dropped in batches[:done]),
            done,
        )
        self._before = dict(zip(COUNTED, counts, strict=True))

    def of_step(self, event: Mapping[str, Any], *, gradient_step: int) -> Row:
        """The row of a `step` event; `gradient_step` counts from 1 within the call."""
        given, dropped = self._batches[gradient_step - 1]
        counts = {
            "num_trajectories": given - dropped,
            "trainer_tokens": event["tokens"],
            "num_dropped_trajectories": dropped,
            "num_gradient_steps": 1,
        }
        losses = {ours: event[theirs] for theirs, ours in _OF_LOSS.items()}
        self._told.append({**losses, **counts, "seconds": event["seconds"]})
        row: Row = {"gradient_step": gradient_step, **losses, **_data(counts, self._cumulative())}
        return self._stamped({f"sft/{key}": value for key, value in row.items()})

    def of_call(self, *, seconds: float, dollars: float | None) -> Row:
        """The row of the whole call: means of its losses, sums of its counts."""
        row: Row = {name: fmean(one[name] for one in self._told) for name in _OF_LOSS.values()}
        counts = {key: sum(one[key] for one in self._told) for key in COUNTED}
        row |= _data(counts, self._cumulative())
        row |= {
            "time/step_trainer_s": math.fsum(one["seconds"] for one in self._told),
            "time/step_wall_s": seconds,
        }
        if dollars is not None:
            row["costs/gpu"] = dollars
        return self._stamped(row)

    @property
    def dropped(self) -> int:
        """Trajectories dropped so far."""
        return sum(int(one["num_dropped_trajectories"]) for one in self._told)

    @property
    def any(self) -> bool:
        """Whether a step was told."""
        return bool(self._told)

    def after(self) -> dict[str, float]:
        """The counts from the model's beginning to now."""
        return self._cumulative()

    def _cumulative(self) -> dict[str, float]:
        return {
            key: self.totals.get(key, 0)
            + self._before.get(key, 0)
            + sum(one[key] for one in self._told)
            for key in COUNTED
        }

    def _stamped(self, row: Row) -> Row:
        return stamped(row, self.step)


def stamped(row: Mapping[str, Any], step: int) -> Row:
    """A row with its step and time; numbers that are none are left out."""
    now = dt.datetime.now(dt.UTC)
    kept = {k: v for k, v in row.items() if not (isinstance(v, float) and not math.isfinite(v))}
    return {
        **kept,
        "training_step": step,
        "step": step,
        "time/wall_clock_sec": now.timestamp(),
        "recorded_at": now.isoformat(),
    }


def _data(counts: Mapping[str, float], cumulative: Mapping[str, float]) -> Row:
    row: Row = {f"data/step_{key}": value for key, value in counts.items()}
    return row | {f"data/cum/{key}": value for key, value in cumulative.items()}


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to a file of them, each written by one call. Raises DiskError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            for row in rows:
                os.write(descriptor, json.dumps(row, ensure_ascii=False).encode() + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DiskError(
            f"cannot write the history: {error.strerror or error}",
            where=str(path),
            remedy="free some space, or change its permissions",
        ) from error


def read(path: Path) -> list[Row]:
    """All whole rows of a history; none where there is no file."""
    if not path.is_file():
        return []
    rows: list[Row] = []
    for line in path.read_bytes().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # the last line of a process that was killed
    return rows
