"""What happens to jobs: events, checkpoints, webhooks owed. What a worker writes, it writes once. It knows no process."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from hone.errors import HoneError
from hone.service.names import CHECKPOINT, EVENT, PERMISSION, checkpoint_name, new_id
from hone.service.records import (
    Checkpoint,
    Event,
    Hook,
    Job,
    NewCheckpoint,
    NewEvent,
    Permission,
)
from hone.service.tables.database import Database, insert, rows, to_json, update
from hone.serving.refusal import Refusal

_HOOK_RETRIES: Final = (5, 30, 300, 1800, 7200, 21600)
"""Seconds between the attempts of one webhook; after the last it is given up."""


class LostLease(HoneError):
    """Another worker may have the job by now: this one must end what it started, and write nothing."""


class Follow(Database):
    """The events and checkpoints of a store."""

    def add_events(
        self,
        job: str,
        fence: int,
        events: Sequence[NewEvent],
        *,
        offset: int | None = None,
        checkpoints: Sequence[NewCheckpoint] = (),
        progress: dict[str, Any] | None = None,
        estimated_finish: int | None = None,
    ) -> None:
        """Keep what a worker read up to `offset`, all in one. Raises LostLease where the worker has lost the job."""
        with self.writing() as connection:
            held = check_fence(connection, job, fence)
            values: dict[str, object] = {}
            if offset is not None:
                values["events_offset"] = offset
            if progress is not None:
                values["progress"] = to_json({**held.progress, **progress})
            if estimated_finish is not None:
                values["estimated_finish"] = estimated_finish
            if values:
                update(connection, "jobs", values, "id = ?", job)
            self.put_events(connection, job, events)
            for one in checkpoints:
                self._add_checkpoint(connection, held, one)

    def forget_checkpoints(self, job: str, fence: int, steps: Sequence[int]) -> None:
        """Let go of checkpoints that their run keeps no longer, and of their names. Raises LostLease."""
        with self.writing() as connection:
            held = check_fence(connection, job, fence)
            for step in steps:
                name = checkpoint_name(held.tuned_name, step)
                connection.execute("DELETE FROM models WHERE name = ?", (name,))
                connection.execute("DELETE FROM checkpoints WHERE name = ?", (name,))

    def put_events(
        self, connection: sqlite3.Connection, job: str, events: Sequence[NewEvent]
    ) -> None:
        """Keep events within a transaction."""
        for one in events:
            add_event(
                connection, job, one.message, level=one.level, type=one.type, data=one.data, mark=one.mark,
                created=self.now() if one.created is None else one.created,
            )  # fmt: skip

    def _add_checkpoint(self, connection: sqlite3.Connection, job: Job, new: NewCheckpoint) -> None:
        known = "SELECT 1 FROM checkpoints WHERE job = ? AND step = ?"
        if connection.execute(known, (job.id, new.step)).fetchone() is not None:
            return
        created = self.now() if new.created is None else new.created
        name = checkpoint_name(job.tuned_name, new.step)
        values = {
            "id": new_id(CHECKPOINT),
            "job": job.id,
            "step": new.step,
            "name": name,
            "path": new.path,
        }
        insert(
            connection,
            "checkpoints",
            {**values, "metrics": to_json(new.metrics), "created": created},
        )
        model = {
            "name": name,
            "owner": job.owner,
            "job": job.id,
            "base": job.base,
            "kind": "checkpoint",
        }
        insert(connection, "models", {**model, "path": new.path, "created": created})
        said = f"Checkpoint created at step {new.step}"
        data = {"step": new.step, "fine_tuned_model_checkpoint": name}
        add_event(
            connection, job.id, said, data=data, mark=f"checkpoint:{new.step}", created=created
        )

    def events(
        self, job: str, *, after: str | None = None, limit: int = 20
    ) -> tuple[list[Event], bool]:
        """A page of a job's events, newest first, and whether there is more."""
        return self._page(Event, "events", job, after, limit)

    def checkpoints(
        self, job: str, *, after: str | None = None, limit: int = 10
    ) -> tuple[list[Checkpoint], bool]:
        """A page of a job's checkpoints, newest first, and whether there is more."""
        return self._page(Checkpoint, "checkpoints", job, after, limit)

    def _page(
        self, kind: Any, table: str, job: str, after: str | None, limit: int
    ) -> tuple[list[Any], bool]:
        words, of = "job = ?", [job]
        with self.reading() as connection:
            if after is not None:
                asked = f"SELECT seq FROM {table} WHERE id = ? AND job = ?"  # noqa: S608
                anchor = connection.execute(asked, (after, job)).fetchone()
                if anchor is None:
                    raise Refusal(
                        400, f"{after[:80]!r} is none of this job's {table}", param="after"
                    )
                words += " AND seq < ?"
                of.append(anchor["seq"])
            asked = f"SELECT * FROM {table} WHERE {words} ORDER BY seq DESC LIMIT ?"  # noqa: S608
            found = [kind.of(row) for row in rows(connection, asked, [*of, limit + 1])]
        return found[:limit], len(found) > limit

    def checkpoint(self, name: str, owner: str | None) -> Checkpoint:
        """A checkpoint by the name under which it answers. Raises Refusal 404."""
        words = (
            "SELECT c.*, j.owner FROM checkpoints c JOIN jobs j ON j.id = c.job WHERE c.name = ?"
        )
        with self.reading() as connection:
            row = connection.execute(words, (name,)).fetchone()
        if row is None or (owner is not None and row["owner"] != owner):
            raise Refusal(
                404, f"no checkpoint {name[:120]!r} is here", param="fine_tuned_model_checkpoint", code="checkpoint_not_found"
            )  # fmt: skip
        return Checkpoint.of(row)

    def permit(self, checkpoint: str, projects: Sequence[str]) -> list[Permission]:
        """Let other owners use a checkpoint; those that were let already keep their permission."""
        made: list[Permission] = []
        with self.writing() as connection:
            for project in projects:
                words = "SELECT * FROM permissions WHERE checkpoint = ? AND project = ?"
                found = connection.execute(words, (checkpoint, project)).fetchone()
                if found is None:
                    most = connection.execute(
                        "SELECT coalesce(max(seq), 0) + 1 FROM permissions"
                    ).fetchone()[0]
                    values = {
                        "id": new_id(PERMISSION),
                        "seq": most,
                        "checkpoint": checkpoint,
                        "project": project,
                    }
                    insert(connection, "permissions", {**values, "created": self.now()})
                    found = connection.execute(words, (checkpoint, project)).fetchone()
                made.append(Permission.of(found))
        return made

    def permissions(self, checkpoint: str) -> list[Permission]:
        """Who else may use a checkpoint, newest first."""
        words = "SELECT * FROM permissions WHERE checkpoint = ? ORDER BY seq DESC"
        with self.reading() as connection:
            return [Permission.of(row) for row in rows(connection, words, (checkpoint,))]

    def forbid(self, checkpoint: str, permission: str) -> bool:
        """Take a permission back; whether there was one."""
        with self.writing() as connection:
            words = "DELETE FROM permissions WHERE id = ? AND checkpoint = ?"
            return bool(connection.execute(words, (permission, checkpoint)).rowcount)

    def due_hooks(self, limit: int = 20) -> list[Hook]:
        """Webhooks to be sent now, oldest first."""
        words = "SELECT * FROM hooks WHERE done IS NULL AND next_at <= ? AND attempts <= ? ORDER BY seq LIMIT ?"
        with self.reading() as connection:
            of = (self.now(), len(_HOOK_RETRIES), limit)
            return [Hook.of(row) for row in rows(connection, words, of)]

    def sent_hook(self, hook: Hook, *, arrived: bool, said: str) -> None:
        """Keep what an attempt came to; one that failed is tried again later, each time later."""
        wait = _HOOK_RETRIES[min(hook.attempts, len(_HOOK_RETRIES) - 1)]
        values = {"attempts": hook.attempts + 1, "said": said[:500], "next_at": self.now() + wait}
        with self.writing() as connection:
            update(
                connection,
                "hooks",
                {**values, "done": self.now() if arrived else None},
                "seq = ?",
                hook.seq,
            )


def check_fence(connection: sqlite3.Connection, job: str, fence: int) -> Job:
    """The job that a worker holds. Raises LostLease."""
    row: Any = connection.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
    if row is None or row["fence"] != fence or row["status"] != "running":
        raise LostLease(
            f"{job} is no longer held by this worker", remedy="nothing; another goes on with it"
        )
    return Job.of(row)


def add_event(
    connection: sqlite3.Connection,
    job: str,
    message: str,
    *,
    created: int,
    level: str = "info",
    type: str = "message",  # noqa: A002 - the wire's word
    data: dict[str, Any] | None = None,
    mark: str | None = None,
) -> None:
    """Keep one event within a transaction, unless its mark is known."""
    if mark is not None:
        words = "SELECT 1 FROM events WHERE job = ? AND mark = ?"
        if connection.execute(words, (job, mark)).fetchone() is not None:
            return
    values = {
        "id": new_id(EVENT),
        "job": job,
        "level": level,
        "type": type,
        "message": message,
        "mark": mark,
    }
    insert(
        connection,
        "events",
        {**values, "data": None if data is None else to_json(data), "created": created},
    )


def owe_hook(connection: sqlite3.Connection, job: str, status: str, at: int) -> None:
    """A job has ended: whoever wants to hear of it shall."""
    values = {
        "id": new_id("evt_"),
        "job": job,
        "type": f"fine_tuning.job.{status}",
        "created": at,
        "next_at": at,
    }
    insert(connection, "hooks", values)
