"""What the API answers, as schemas: they describe, and tests hold every answer against them. It builds nothing."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An object of an answer; clients take fields that they do not know."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(Answer):
    """What was wrong: always these four."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Answer):
    """Every answer that is no success."""

    error: ErrorBody


class File(Answer):
    """`file`."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None
    expires_at: int | None
    x_hone: dict[str, int] | None = None


class Upload(Answer):
    """`upload`."""

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    expires_at: int
    file: File | None


class Part(Answer):
    """`upload.part`."""

    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str


class JobError(Answer):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class Hyperparameters(Answer):
    """As numbers once they are known."""

    n_epochs: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]


class Supervised(Answer):
    """The supervised method's part."""

    hyperparameters: Hyperparameters


class Method(Answer):
    """How it is trained."""

    type: Literal["supervised"]
    supervised: Supervised


class Job(Answer):
    """`fine_tuning.job`."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    error: JobError | None
    fine_tuned_model: str | None
    hyperparameters: Hyperparameters
    method: Method
    model: str
    organization_id: str
    result_files: list[str]
    status: Literal[
        "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
    ]
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    seed: int
    estimated_finish: int | None
    integrations: list[Any]
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    x_hone: dict[str, Any]


class Event(Answer):
    """`fine_tuning.job.event`."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any] | None


class Checkpoint(Answer):
    """`fine_tuning.job.checkpoint`."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float | None]
    step_number: int


class Permission(Answer):
    """`checkpoint.permission`."""

    id: str
    object: Literal["checkpoint.permission"]
    created_at: int
    project_id: str


class Model(Answer):
    """`model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Trainable(Answer):
    """`x_hone.model`."""

    object: Literal["x_hone.model"]
    project: str
    name: str
    base_model: str
    step: int
    gradient_steps: int
    inference_name: str
    created_at: int
    deleted: list[int] | None = None


class Deleted(Answer):
    """What is gone."""

    id: str
    object: str
    deleted: Literal[True]


class Page(Answer):
    """A part of a list; `last_id` is where the next begins."""

    object: Literal["list"]
    has_more: bool
    first_id: str | None
    last_id: str | None


class Files(Page):
    """Files."""

    data: list[File]


class Jobs(Page):
    """Jobs."""

    data: list[Job]


class Events(Page):
    """Events."""

    data: list[Event]


class Checkpoints(Page):
    """Checkpoints."""

    data: list[Checkpoint]


class Permissions(Page):
    """Permissions."""

    data: list[Permission]


class Models(Answer):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class Trainables(Answer):
    """All trainable models."""

    object: Literal["list"]
    data: list[Trainable]
    has_more: Literal[False]
