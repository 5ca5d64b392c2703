"""The queue: which job a worker gets, how long it keeps it, and what becomes of it. It knows no process.

A lease is told by a clock that only runs forward while this machine is up, and by the machine's start: a set clock
neither ends one nor keeps it alive. Each claim gives the job a new fence; what an earlier holder writes is refused.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hone.service.records import Job, NewEvent
from hone.service.tables.database import insert, rows, to_json, update
from hone.service.tables.follow import Follow, add_event, check_fence, owe_hook

_CLAIMABLE: Final = """
SELECT j.* FROM jobs j JOIN owners o ON o.name = j.owner
LEFT JOIN (SELECT owner, count(*) AS held FROM jobs WHERE status = 'running' AND lease_boot = :boot AND lease_until > :at
  GROUP BY owner) r ON r.owner = j.owner
WHERE j.wanted = 'run' AND coalesce(r.held, 0) < o.max_running AND (j.status = 'queued'
  OR (j.status = 'running' AND (j.lease_boot IS NOT :boot OR j.lease_until <= :at)))
  AND (json_extract(j.body, '$.x_hone.trainable') IS NULL OR NOT EXISTS (SELECT 1 FROM jobs b WHERE b.owner = j.owner
    AND b.model = j.model AND b.seq < j.seq AND b.status NOT IN ('succeeded', 'failed', 'cancelled')
    AND json_extract(b.body, '$.x_hone.trainable') IS NOT NULL))
ORDER BY coalesce(r.held, 0), j.priority DESC, j.seq LIMIT 1
"""
_ORPHANS: Final = """
SELECT * FROM jobs WHERE status = 'running' AND wanted != 'run' AND (lease_boot IS NOT ? OR lease_until <= ?)
"""


class Queue(Follow):
    """The queue of a store."""

    def claim(self, worker: str, lease_s: float) -> Job | None:
        """The next job for a worker, held by it for `lease_s`; None where there is none.

        The owner with the fewest running jobs comes first, then the higher priority, then the older job. A job whose
        lease ran out is given again, under a new fence. Calls of one trainable model come one after another.
        """
        at, boot = _uptime(), _boot()
        with self.writing() as connection:
            self._settle(connection, boot, at)
            row = connection.execute(_CLAIMABLE, {"boot": boot, "at": at}).fetchone()
            if row is None:
                return None
            job = Job.of(row)
            if job.started is None:
                add_event(
                    connection,
                    job.id,
                    "Fine-tuning job started",
                    mark="started",
                    created=self.now(),
                )
            values = {
                "status": "running", "lease_owner": worker, "lease_boot": boot, "lease_until": at + lease_s,
                "fence": job.fence + 1, "attempts": job.attempts + 1,
                "started": self.now() if job.started is None else job.started,
            }  # fmt: skip
            update(connection, "jobs", values, "id = ?", job.id)
            return Job.of(
                connection.execute("SELECT * FROM jobs WHERE id = ?", (job.id,)).fetchone()
            )

    def renew(self, job: str, fence: int, lease_s: float) -> bool:
        """Keep a job for another `lease_s`; False where it is lost."""
        with self.writing() as connection:
            values = {"lease_boot": _boot(), "lease_until": _uptime() + lease_s}
            where = "id = ? AND fence = ? AND status = 'running'"
            return bool(update(connection, "jobs", values, where, job, fence))

    def abandon(self, worker: str) -> int:
        """Let everybody have what a worker of this name held that is dead; how many jobs."""
        with self.writing() as connection:
            where = "status = 'running' AND lease_owner = ?"
            return update(connection, "jobs", {"lease_until": 0.0}, where, worker)

    def release(
        self,
        job: str,
        fence: int,
        status: str,
        *,
        error: dict[str, Any] | None = None,
        trained_tokens: int | None = None,
        model_path: str | None = None,
        result_files: Sequence[str] = (),
        events: Sequence[NewEvent] = (),
        offset: int | None = None,
        gradient_steps: int = 0,
        step: int | None = None,
    ) -> Job:
        """Give a job back: succeeded (with the folder of its weights, below the root), failed, cancelled, paused, or
        queued, to be gone on with. The job as it is then. Raises LostLease.

        `step` is where a trainable model is now. What its owner asked for meanwhile holds: a job that is queued again may become cancelled or paused, one that is
        paused may be queued.
        """
        with self.writing() as connection:
            held = check_fence(connection, job, fence)
            self.put_events(connection, job, events)
            settled = _settled(status, held.wanted)
            values: dict[str, object] = {
                "status": settled,
                "lease_owner": None,
                "lease_boot": None,
                "lease_until": None,
            }
            if offset is not None:
                values["events_offset"] = offset
            if trained_tokens is not None:
                values["trained_tokens"] = trained_tokens
            if result_files:
                values["result_files"] = to_json([*held.result_files, *result_files])
            if error is not None:
                values["error"] = to_json(error)
            if settled == "succeeded" and model_path is not None:
                values["fine_tuned_model"] = held.tuned_name
                self._add_model(connection, held, model_path)
            self._end(connection, held, settled, values, error)
            if settled == "succeeded":
                self._advance(connection, held, gradient_steps, step)
            return Job.of(connection.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone())

    def running_jobs(self, worker: str | None = None) -> list[Job]:
        """Jobs that a worker holds, or that any does."""
        words = "SELECT * FROM jobs WHERE status = 'running' AND (?1 IS NULL OR lease_owner = ?1) ORDER BY seq"
        with self.reading() as connection:
            return [Job.of(row) for row in rows(connection, words, (worker,))]

    def _end(
        self,
        connection: sqlite3.Connection,
        job: Job,
        status: str,
        values: dict[str, object],
        error: dict[str, Any] | None = None,
    ) -> None:
        """Put a job into the state that it has when no worker holds it any more."""
        at = self.now()
        if status in ("succeeded", "failed", "cancelled"):
            values |= {"finished": at, "estimated_finish": None}
            owe_hook(connection, job.id, status, at)
        said = {
            "succeeded": "The job has successfully completed",
            "failed": f"The job failed: {(error or {}).get('message', 'no reason was given')}",
            "cancelled": "The job was cancelled",
            "paused": "The job was paused",
            "queued": "The job is queued again",
        }[status]
        level = {"failed": "error", "cancelled": "warn"}.get(status, "info")
        add_event(connection, job.id, said, level=level, created=at)
        update(connection, "jobs", values, "id = ?", job.id)

    def _settle(self, connection: sqlite3.Connection, boot: str, at: float) -> None:
        """Jobs that were to stop when their worker died."""
        for row in rows(connection, _ORPHANS, (boot, at)):
            job = Job.of(row)
            status = _settled("queued", job.wanted)
            values: dict[str, object] = {
                "status": status,
                "lease_owner": None,
                "fence": job.fence + 1,
            }
            self._end(connection, job, status, values)

    def _add_model(self, connection: sqlite3.Connection, job: Job, path: str) -> None:
        trainable = job.body.get("x_hone", {}).get("trainable")
        if trainable is not None:
            return
        created = self.now()
        model = {
            "name": job.tuned_name,
            "owner": job.owner,
            "job": job.id,
            "base": job.base,
            "kind": "tuned",
        }
        insert(connection, "models", {**model, "path": path, "created": created})
        said = f"New fine-tuned model created: {job.tuned_name}"
        add_event(connection, job.id, said, created=created, mark="model")

    def _advance(
        self, connection: sqlite3.Connection, job: Job, gradient_steps: int, step: int | None
    ) -> None:
        """A call of a trainable model is done: it is at `step` now; None is one more than the call was meant for."""
        trainable = job.body.get("x_hone", {}).get("trainable")
        if trainable is None:
            return
        connection.execute(
            "UPDATE trainables SET step = ?, gradient_steps = gradient_steps + ? "
            "WHERE owner = ? AND project = ? AND name = ?",
            (trainable["expected_step"] + 1 if step is None else step, gradient_steps, job.owner, trainable["project"], trainable["name"]),
        )  # fmt: skip


def _settled(status: str, wanted: str) -> str:
    """What a worker's word comes to beside what the owner asked for meanwhile."""
    if status == "queued":
        return {"run": "queued", "pause": "paused", "cancel": "cancelled"}[wanted]
    if status == "paused":
        return {"run": "queued", "pause": "paused", "cancel": "cancelled"}[wanted]
    return status


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot() -> str:
    """The name of this start of the machine; a place that tells none has one name for all."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "this machine"
