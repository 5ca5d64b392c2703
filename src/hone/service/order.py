"""The order that a job's process is given, and the outcome that it leaves: two JSON files in the job's folder.

<root>/jobs/<job id>/
    job.json         the order: the whole configuration, or a call of training
    train.jsonl      the rows; valid.jsonl, where there are some held out
    beginning/       the adapter that it begins with, where that was a checkpoint
    run/             the run, as `hone train` keeps it
    outcome.json     how the last start ended, written last
    starts.json      how often it was started without coming further
    job.log          what its processes printed
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from hone.backends.job import Job
from hone.backends.local_wire import error_of, fault_of
from hone.errors import EnvironmentFault, HoneError, Stopped
from hone.runs.disk import Disk, read_regular

ORDER: Final = "job.json"
OUTCOME: Final = "outcome.json"
LOG: Final = "job.log"
RUN: Final = "run"
BEGINNING: Final = "beginning"
TRAINING_ROWS: Final = "train.jsonl"
VALIDATION_ROWS: Final = "valid.jsonl"

Ended = Literal["finished", "failed", "stopped"]


@dataclass(frozen=True)
class CallOrder:
    """One call of `train_sft` on a trainable model of the service."""

    root: str
    """Where its owner's models lie."""
    project: str
    name: str
    base_model: str
    expected_step: int | None
    """The training step that the model must be at; None takes it as it is."""
    learning_rate: float | list[float]
    batch_size: int
    train_on: str
    settings: dict[str, Any]
    """`lora_config` and `init_args`, as `TrainableModel` takes them."""
    compute: dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What a job's process does: a run, or a call."""

    run: Job | None = None
    call: CallOrder | None = None
    begins_at: str | None = None
    """The checkpoint of another run whose weights this one begins with."""

    def write(self, folder: Path) -> None:
        """Keep it in the job's folder."""
        told = {
            "run": None if self.run is None else json.loads(self.run.encode_job()),
            "call": None if self.call is None else asdict(self.call),
            "begins_at": self.begins_at,
        }
        Disk().replace_file(folder / ORDER, json.dumps(told, indent=1).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Order:
        """The order of a job's folder. Raises EnvironmentFault where there is none."""
        told = _read(folder / ORDER)
        if told is None:
            raise EnvironmentFault("no order lies there", where=str(folder / ORDER))
        run, call = told["run"], told["call"]
        return cls(
            None if run is None else Job.decode_job(json.dumps(run)),
            None if call is None else CallOrder(**call),
            told["begins_at"],
        )


@dataclass(frozen=True)
class Outcome:
    """How a start of a job ended."""

    ended: Ended
    steps: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    step: int | None = None
    """Of a call: the training step that the model is at."""
    fault: Mapping[str, Any] | None = None

    @classmethod
    def of_error(cls, error: Exception) -> Outcome:
        """Failed, or stopped where it was asked to."""
        kind: Ended = "stopped" if isinstance(error, Stopped) else "failed"
        return cls(kind, fault=fault_of(error))

    @property
    def error(self) -> HoneError | None:
        """What it failed with."""
        return None if self.fault is None else error_of(self.fault, log="")

    def write(self, folder: Path) -> None:
        """Keep it in the job's folder."""
        text = json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"
        Disk().replace_file(folder / OUTCOME, text.encode())

    @classmethod
    def read(cls, folder: Path) -> Outcome | None:
        """How the last start ended; None where it did not come to its end."""
        with contextlib.suppress(EnvironmentFault):
            told = _read(folder / OUTCOME)
            return None if told is None else cls(**told)
        return None

    @staticmethod
    def forget(folder: Path) -> None:
        """A new start begins."""
        (folder / OUTCOME).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return cast("dict[str, Any]", json.loads(read_regular(path)))
    except OSError:
        return None
    except ValueError as error:
        raise EnvironmentFault(
            f"{path.name} is damaged: {error}", where=str(path), remedy="create the job again"
        ) from error
