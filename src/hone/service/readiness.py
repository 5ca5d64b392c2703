"""What happens between a request and the queue: jobs whose files are checked get every value and are queued or refused.

It knows no HTTP.
"""

from __future__ import annotations

from typing import Any

from hone.errors import HoneError
from hone.service.asking import said_hyperparameters
from hone.service.desk import Desk
from hone.service.records import Job
from hone.service.translation import Refused, check_hyperparameters, settle
from hone.serving.refusal import Refusal


def make_ready(desk: Desk) -> None:
    """Queue the jobs whose files are good, and fail those whose files are not."""
    for job in desk.store.unready_jobs():
        try:
            _judge(desk, job)
        except Refusal as refusal:  # its file went meanwhile
            desk.store.fail_job(
                job.id, {"code": refusal.code, "message": str(refusal), "param": refusal.param}
            )


def _judge(desk: Desk, job: Job) -> None:
    """Queue a job, fail it, or let it wait until its files are checked."""
    count = 0
    for param, id_ in (
        ("training_file", job.training_file),
        ("validation_file", job.validation_file),
    ):
        if id_ is None:
            continue
        file = desk.store.file(id_, job.owner)
        if file.status == "uploaded":
            return
        if file.status == "error":
            message = f"{id_} cannot be trained on: {file.details}"
            desk.store.fail_job(
                job.id, {"code": f"invalid_{param}", "message": message, "param": param}
            )
            return
        if param == "training_file":
            count = file.rows or 0
    try:
        values = _values(desk, job, count)
    except HoneError as error:
        param = error.param if isinstance(error, Refused) else None
        desk.store.fail_job(
            job.id, {"code": "invalid_value", "message": error.what, "param": param}
        )
        return
    desk.store.ready_job(job.id, *values)


def _values(desk: Desk, job: Job, rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters as numbers, and the whole configuration."""
    if "trainable" in job.body.get("x_hone", {}):
        return {}, {}
    said, place = said_hyperparameters(job.body)
    settled = settle(
        check_hyperparameters(said, place),
        job.config,
        place=place,
        seed=job.seed,
        rows=rows,
        has_validation=job.validation_file is not None,
        operator=desk.operator.settings,
    )
    return settled.hyperparameters, settled.config
