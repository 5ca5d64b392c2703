"""What the store holds, as frozen records; JSON columns are read. They know no SQL beyond a row's names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

Status = Literal[
    "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
]
Wanted = Literal["run", "pause", "cancel"]
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
_JSON: Final = frozenset(
    {"quotas", "config", "metadata", "hyperparameters", "result_files", "error", "progress", "data", "metrics", "body"}
)  # fmt: skip
_TRUTHS: Final = frozenset({"is_admin"})


@dataclass(frozen=True)
class Record:
    """A row of a table; its fields are columns."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The record in a row, which may have more columns."""
        values = {name: row[name] for name in row.keys() if name in cls.__dataclass_fields__}  # noqa: SIM118
        for name in _JSON & values.keys():
            if values[name] is not None:
                values[name] = json.loads(values[name])
        for name in _TRUTHS & values.keys():
            values[name] = bool(values[name])
        return cls(**values)


@dataclass(frozen=True)
class Quotas:
    """What one owner may use; None: as much as there is."""

    file_bytes: int = 512 * 2**20
    """Largest file."""
    disk_bytes: int | None = 64 * 2**30
    """All files of an owner together."""
    file_rows: int | None = None
    """Rows of one training file."""
    jobs: int | None = 1000
    """Jobs that have not ended."""
    files: int | None = 10_000
    """Files that are kept."""


@dataclass(frozen=True)
class Key(Record):
    """A key and the limits of its owner; keys of one owner share what was made with them."""

    id: str
    owner: str
    is_admin: bool
    created: int
    revoked: int | None
    priority: int
    max_running: int
    quotas: dict[str, Any]

    @property
    def limits(self) -> Quotas:
        """The owner's quotas, defaults where none was set."""
        return Quotas(**self.quotas)


@dataclass(frozen=True)
class StoredFile(Record):
    """A file; its bytes lie at `files/ID` below the root. `status`: uploaded (not yet checked), processed, error."""

    seq: int
    id: str
    owner: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    status: str
    rows: int | None
    details: str | None
    created: int
    expires_at: int | None


@dataclass(frozen=True)
class Upload(Record):
    """A file that comes in parts; `status`: pending, completed, cancelled, expired."""

    id: str
    owner: str
    filename: str
    purpose: str
    mime_type: str
    bytes: int
    status: str
    created: int
    expires_at: int
    file_expires_s: int | None
    file: str | None


@dataclass(frozen=True)
class Part(Record):
    """One part of an upload; its bytes lie at `uploads/UPLOAD/PART` below the root."""

    id: str
    upload: str
    bytes: int
    created: int


@dataclass(frozen=True)
class Job(Record):
    """A fine-tuning job.

    `base` is the operator's name of the base model, also where `model` is a tuned one. `tuned_name` is kept for the
    job from its creation; `fine_tuned_model` is the same once it succeeded. `config` is dotted settings of Hone that
    the user gave. `progress` is whatever the worker last said: step, total_steps, plan.
    """

    seq: int
    id: str
    owner: str
    model: str
    base: str
    tuned_name: str
    status: Status
    wanted: Wanted
    priority: int
    body: dict[str, Any]
    config: dict[str, Any]
    metadata: dict[str, str]
    hyperparameters: dict[str, Any]
    seed: int
    suffix: str | None
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    fine_tuned_model: str | None
    error: dict[str, Any] | None
    progress: dict[str, Any]
    created: int
    started: int | None
    finished: int | None
    estimated_finish: int | None
    lease_owner: str | None
    fence: int
    events_offset: int
    attempts: int

    @property
    def has_ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.status in ENDED


@dataclass(frozen=True)
class NewJob:
    """A job as it is asked for. `digest` tells a repeated request; None: never one."""

    model: str
    base: str
    body: dict[str, Any]
    training_file: str
    validation_file: str | None = None
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    hyperparameters: dict[str, Any] = field(default_factory=dict[str, Any])
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    seed: int = 0
    suffix: str | None = None


@dataclass(frozen=True)
class Event(Record):
    """What happened to a job; `seq` grows, whatever clocks do."""

    seq: int
    id: str
    job: str
    level: str
    type: str
    message: str
    data: dict[str, Any] | None
    created: int


@dataclass(frozen=True)
class NewEvent:
    """An event to be kept. Of those of one job with one `mark` only the first is: what is done again is not told again."""

    message: str
    type: Literal["message", "metrics"] = "message"
    level: Literal["info", "warn", "error"] = "info"
    data: dict[str, Any] | None = None
    mark: str | None = None
    created: int | None = None


@dataclass(frozen=True)
class Checkpoint(Record):
    """A state of a job that can be used as a model; `path` is below the root."""

    seq: int
    id: str
    job: str
    step: int
    name: str
    path: str
    metrics: dict[str, Any]
    created: int


@dataclass(frozen=True)
class NewCheckpoint:
    """A checkpoint to be kept; of those of one job with one step only the first is."""

    step: int
    path: str
    metrics: dict[str, Any] = field(default_factory=dict[str, Any])
    created: int | None = None


@dataclass(frozen=True)
class Permission(Record):
    """Another owner may use a checkpoint."""

    id: str
    seq: int
    checkpoint: str
    project: str
    created: int


@dataclass(frozen=True)
class Model(Record):
    """Something that answers: `kind` is tuned, checkpoint or trainable; `path` is below the root."""

    seq: int
    name: str
    owner: str
    job: str | None
    base: str
    kind: str
    path: str
    created: int


@dataclass(frozen=True)
class Trainable(Record):
    """A model that is trained call by call; `step` counts calls, `gradient_steps` updates."""

    owner: str
    project: str
    name: str
    base: str
    step: int
    gradient_steps: int
    created: int


@dataclass(frozen=True)
class Hook(Record):
    """A webhook that is owed, until `done`."""

    seq: int
    id: str
    job: str
    type: str
    created: int
    attempts: int
    next_at: int
    done: int | None
