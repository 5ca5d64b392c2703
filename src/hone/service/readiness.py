"""What happens between a request and the queue: files are checked, jobs get every value and are queued or refused.

It knows no HTTP.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any, Final

from hone.config.surroundings import child_environment
from hone.errors import HoneError
from hone.service.asking import said_hyperparameters
from hone.service.desk import Desk
from hone.service.records import Job, StoredFile
from hone.service.translation import Refused, check_hyperparameters, settle
from hone.serving.refusal import Refusal

logger = logging.getLogger("hone")

_CHECK_S: Final = 3600.0
_KEPT: Final = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")


def make_ready(desk: Desk) -> None:
    """Check what waits to be checked, and queue the jobs whose files are good."""
    for file in desk.store.unchecked_files():
        check_apart(desk, file)
    for job in desk.store.unready_jobs():
        try:
            _judge(desk, job)
        except Refusal as refusal:  # its file went meanwhile
            desk.store.fail_job(
                job.id, {"code": refusal.code, "message": str(refusal), "param": refusal.param}
            )


def check_apart(desk: Desk, file: StoredFile) -> None:
    """Check a file in a process of its own: it may be large, and what is in it is a stranger's."""
    words = [sys.executable, "-m", "hone.service.checking", str(desk.store.root), file.id]
    known = child_environment(os.environ)
    environment = {name: known[name] for name in _KEPT if name in known}
    try:
        done = subprocess.run(  # noqa: S603 - words of ours
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHECK_S, check=False
        )  # fmt: skip
        said = done.stderr.decode("utf-8", "replace").strip()[-500:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"it took longer than {_CHECK_S:.0f} s"
    if said:
        logger.error("checking %s failed: %s", file.id, said)
        desk.store.judge_file(
            file.id, "error", None, "the file could not be checked; upload it again"
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
