"""What a service lets go: what has expired, and what is left of jobs that nothing needs. It knows no HTTP."""

from __future__ import annotations

import shutil
from typing import Final

from hone.runs.lock import holder
from hone.service.desk import Desk
from hone.service.names import JOB, is_id
from hone.service.order import RUN, TRAINING_ROWS, VALIDATION_ROWS
from hone.serving.refusal import Refusal

_LOCK: Final = "lock"
_ROWS: Final = (TRAINING_ROWS, VALIDATION_ROWS)


def let_go(desk: Desk) -> None:
    """Remove files and uploads whose time is over, then what is left of jobs."""
    for file in desk.store.expired_files():
        try:
            desk.store.delete_file(file.id, file.owner)
        except Refusal:  # a job took it meanwhile
            continue
        desk.vault.remove(file.id)
        desk.store.note(None, "file.expired", file.id)
    for upload in desk.store.expire_uploads():
        desk.vault.remove_upload(upload)
    _let_jobs_go(desk)


def _let_jobs_go(desk: Desk) -> None:
    """Remove folders of ended jobs whose models were deleted or whose files are gone, and copies of rows that are gone."""
    jobs = desk.store.root / "jobs"
    here = [path for path in jobs.iterdir() if is_id(path.name, JOB)] if jobs.is_dir() else []
    if not here:
        return
    spent = desk.store.spent_jobs()
    rowless = desk.store.rowless_jobs()
    for folder in here:
        if holder(folder / RUN / _LOCK) is not None:
            continue
        if folder.name in spent:
            shutil.rmtree(folder, ignore_errors=True)
            desk.store.note(None, "job.removed", folder.name)
            continue
        # Second names of files that their owner deleted: the bytes would stay.
        for name, is_gone in zip(_ROWS, rowless.get(folder.name, ()), strict=False):
            if is_gone:
                (folder / name).unlink(missing_ok=True)
