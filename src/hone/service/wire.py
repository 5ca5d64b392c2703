"""Records as the API's objects: plain values for JSON. It knows no HTTP and no store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hone.service.records import (
    Checkpoint,
    Event,
    Job,
    Part,
    Permission,
    StoredFile,
    Trainable,
    Upload,
)


def file_object(file: StoredFile) -> dict[str, Any]:
    """`file`."""
    told: dict[str, Any] = {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": file.status,
        "status_details": file.details,
        "expires_at": file.expires_at,
    }
    if file.rows is not None:
        told["x_hone"] = {"rows": file.rows}
    return told


def upload_object(upload: Upload, file: StoredFile | None = None) -> dict[str, Any]:
    """`upload`."""
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": upload.created,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
        "expires_at": upload.expires_at,
        "file": None if file is None else file_object(file),
    }


def part_object(part: Part) -> dict[str, Any]:
    """`upload.part`."""
    return {
        "id": part.id,
        "object": "upload.part",
        "created_at": part.created,
        "upload_id": part.upload,
    }


def job_object(job: Job) -> dict[str, Any]:
    """`fine_tuning.job`."""
    hyperparameters = {
        name: job.hyperparameters.get(name, "auto")
        for name in ("n_epochs", "batch_size", "learning_rate_multiplier")
    }
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created,
        "finished_at": job.finished,
        "error": job.error,
        "fine_tuned_model": job.fine_tuned_model,
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "model": job.model,
        "organization_id": f"org-{job.owner}",
        "result_files": job.result_files,
        "status": job.status,
        "trained_tokens": job.trained_tokens,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "seed": job.seed,
        "estimated_finish": job.estimated_finish,
        "integrations": [],
        "metadata": job.metadata or None,
        "user_provided_suffix": job.suffix,
        "x_hone": {
            "config": job.config,
            "wanted": job.wanted,
            "attempts": job.attempts,
            **job.progress,
        },
    }


def event_object(event: Event) -> dict[str, Any]:
    """`fine_tuning.job.event`."""
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": event.created,
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data,
    }


def checkpoint_object(checkpoint: Checkpoint) -> dict[str, Any]:
    """`fine_tuning.job.checkpoint`."""
    return {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": checkpoint.created,
        "fine_tuned_model_checkpoint": checkpoint.name,
        "fine_tuning_job_id": checkpoint.job,
        "metrics": {"step": checkpoint.step, **checkpoint.metrics},
        "step_number": checkpoint.step,
    }


def permission_object(permission: Permission) -> dict[str, Any]:
    """`checkpoint.permission`."""
    return {
        "id": permission.id,
        "object": "checkpoint.permission",
        "created_at": permission.created,
        "project_id": permission.project,
    }


def model_object(name: str, created: int, owner: str) -> dict[str, Any]:
    """`model`."""
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def trainable_object(model: Trainable) -> dict[str, Any]:
    """`x_hone.model`."""
    return {
        "object": "x_hone.model",
        "project": model.project,
        "name": model.name,
        "base_model": model.base,
        "step": model.step,
        "gradient_steps": model.gradient_steps,
        "inference_name": f"{model.project}/{model.name}@{model.step}",
        "created_at": model.created,
    }


def page(objects: Sequence[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """A list's envelope, which says where the next page begins."""
    return {
        "object": "list",
        "data": list(objects),
        "has_more": has_more,
        "first_id": objects[0]["id"] if objects else None,
        "last_id": objects[-1]["id"] if objects else None,
    }
