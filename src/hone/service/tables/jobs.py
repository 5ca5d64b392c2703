"""Jobs as their owners see them: created once, listed, asked to stop or go on. It knows no worker."""

from __future__ import annotations

from typing import Any, Final

from hone.service.names import JOB, new_id, tuned_name
from hone.service.records import ENDED, Job, Key, NewJob, Wanted
from hone.service.tables.database import Database, insert, rows, to_json, update
from hone.service.tables.follow import add_event, owe_hook
from hone.serving.refusal import Refusal

_LIVE: Final = "status NOT IN ('succeeded', 'failed', 'cancelled')"
_NO_RETRY: Final = {"x-should-retry": "false"}


class Jobs(Database):
    """The jobs of a store."""

    def add_job(
        self,
        owner: str,
        new: NewJob,
        *,
        digest: str | None = None,
        window_s: int = 86_400,
        again: bool = True,
        any_body: bool = False,
        key: Key | None = None,
    ) -> tuple[Job, bool]:
        """A job, in `validating_files`, and whether it is new: a `digest` known within `window_s` gives its job again.

        Without `again` the digest is only kept, for who may ask another time. Raises Refusal where the digest was used
        for another body, unless `any_body`, and where a quota is reached.
        """
        body = to_json(new.body)
        with self.writing() as connection:
            former = _former(connection, owner, digest, self.now() - window_s) if again else None
            if former is not None:
                if former["body"] != body and not any_body:
                    raise Refusal(
                        400,
                        "this idempotency key was used for another request; make a new key for a new request",
                        code="idempotency_key_reused",
                    )
                return _job(connection, str(former["job"]), owner), False
            if key is not None:
                _check_quota(connection, key)
            priority = connection.execute(
                "SELECT priority FROM owners WHERE name = ?", (owner,)
            ).fetchone()
            job = new_id(JOB)
            created = self.now()
            values = {
                "id": job, "owner": owner, "model": new.model, "base": new.base, "status": "validating_files",
                "tuned_name": tuned_name(new.base, owner, new.suffix), "body": body, "config": to_json(new.config),
                "metadata": to_json(new.metadata), "hyperparameters": to_json(new.hyperparameters), "seed": new.seed,
                "suffix": new.suffix, "training_file": new.training_file, "validation_file": new.validation_file,
                "priority": priority[0], "created": created,
            }  # fmt: skip
            insert(connection, "jobs", values)
            if digest is not None:
                connection.execute(
                    "DELETE FROM creates WHERE owner = ? AND digest = ?", (owner, digest)
                )
                insert(connection, "creates", {"owner": owner, "digest": digest, "body": body, "job": job, "created": created})  # fmt: skip
            self._say(connection, job, f"Created fine-tuning job: {job}")
            self._say(connection, job, f"Validating training file: {new.training_file}")
            if new.validation_file is not None:
                self._say(connection, job, f"Validating validation file: {new.validation_file}")
            return _job(connection, job, owner), True

    def job(self, id: str, owner: str | None = None) -> Job:  # noqa: A002
        """One job. Raises Refusal 404 where it is not there, or another's; `owner` None asks for anyone's."""
        with self.reading() as connection:
            return _job(connection, id, owner)

    def jobs(
        self,
        owner: str,
        *,
        after: str | None = None,
        limit: int = 20,
        metadata: dict[str, str] | None = None,
        without_metadata: bool = False,
    ) -> tuple[list[Job], bool]:
        """A page of jobs, newest first, and whether there is more."""
        words, of = "owner = ?", [owner]
        with self.reading() as connection:
            if after is not None:
                words += " AND seq < ?"
                of.append(_job(connection, after, owner, param="after").seq)  # type: ignore[arg-type]
            for name, value in (metadata or {}).items():
                words += " AND EXISTS (SELECT 1 FROM json_each(jobs.metadata) WHERE key = ? AND value = ?)"
                of += [name, value]
            if without_metadata:
                words += " AND metadata = '{}'"
            asked = f"SELECT * FROM jobs WHERE {words} ORDER BY seq DESC LIMIT ?"  # noqa: S608
            found = [Job.of(row) for row in rows(connection, asked, [*of, limit + 1])]
        return found[:limit], len(found) > limit

    def want(self, id: str, owner: str, wanted: Wanted, *, again: bool = False) -> Job:  # noqa: A002
        """Ask a job to be cancelled, paused, or run on; the job as it is then.

        One that no worker holds changes at once, one that runs when its worker obeys. `again`: a repeated request, for
        which what it asks for already may be so. Raises Refusal where the state does not allow it.
        """
        with self.writing() as connection:
            job = _job(connection, id, owner)
            _check_lawful(job, wanted, again=again)
            if job.status in ENDED or (wanted == job.wanted and job.status != "validating_files"):
                return job
            values: dict[str, object] = {"wanted": wanted}
            held = job.status == "running"
            if wanted == "cancel" and not held:
                values |= {"status": "cancelled", "finished": self.now()}
                self._say(connection, id, "The job was cancelled", "warn")
                owe_hook(connection, id, "cancelled", self.now())
            elif wanted == "pause" and not held:
                values["status"] = "paused"
                self._say(connection, id, "The job was paused")
            elif wanted == "run" and not held:
                values["status"] = "queued"
                self._say(connection, id, "The job was resumed and is queued")
            else:
                said = {
                    "cancel": "Cancelling the job",
                    "pause": "Pausing the job",
                    "run": "Going on",
                }
                self._say(connection, id, said[wanted])
            update(connection, "jobs", values, "id = ?", id)
            return _job(connection, id, owner)

    def unready_jobs(self) -> list[Job]:
        """Jobs whose files are not known to be good yet, oldest first."""
        words = "SELECT * FROM jobs WHERE status = 'validating_files' ORDER BY seq LIMIT 1000"
        with self.reading() as connection:
            return [Job.of(row) for row in rows(connection, words)]

    def ready_job(self, id: str, hyperparameters: dict[str, Any], config: dict[str, Any]) -> None:  # noqa: A002
        """Queue a job whose files are good, with every value that it will be trained by."""
        values = {
            "status": "queued",
            "hyperparameters": to_json(hyperparameters),
            "config": to_json(config),
        }
        with self.writing() as connection:
            if update(connection, "jobs", values, "id = ? AND status = 'validating_files'", id):
                self._say(connection, id, "Files validated, moving job to queued state")

    def fail_job(self, id: str, error: dict[str, Any]) -> None:  # noqa: A002
        """End a job that no worker has had."""
        values = {"status": "failed", "error": to_json(error), "finished": self.now()}
        with self.writing() as connection:
            if update(connection, "jobs", values, "id = ? AND status = 'validating_files'", id):
                self._say(connection, id, f"The job failed: {error['message']}", "error")
                owe_hook(connection, id, "failed", self.now())

    def count_jobs(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self.reading() as connection:
            return _counts(connection)

    def totals(self) -> dict[str, Any]:
        """Counts over everybody's things."""
        with self.reading() as connection:
            count, size = connection.execute(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM files"
            ).fetchone()
            tokens = connection.execute("SELECT coalesce(sum(trained_tokens), 0) FROM jobs")
            hooks = connection.execute("SELECT count(*) FROM hooks WHERE done IS NULL")
            return {
                "jobs": _counts(connection),
                "files": count,
                "file_bytes": size,
                "trained_tokens": tokens.fetchone()[0],
                "hooks": hooks.fetchone()[0],
            }

    def _say(self, connection: Any, job: str, message: str, level: Any = "info") -> None:
        add_event(connection, job, message, level=level, created=self.now())

    def spent_jobs(self) -> frozenset[str]:
        """Ended jobs of which nothing is needed: their models were deleted, or there are none and their file is gone."""
        words = f"""
            SELECT id FROM jobs WHERE NOT ({_LIVE})
            AND id NOT IN (SELECT job FROM models WHERE job IS NOT NULL)
            AND ((fine_tuned_model IS NOT NULL AND json_extract(body, '$.x_hone.trainable') IS NULL)
                 OR training_file NOT IN (SELECT id FROM files))
        """  # noqa: S608
        with self.reading() as connection:
            return frozenset(str(row["id"]) for row in rows(connection, words))

    def rowless_jobs(self) -> dict[str, tuple[bool, bool]]:
        """Ended jobs whose files are gone: whether that of training, and that of validation."""
        words = f"""
            SELECT id, training_file NOT IN (SELECT id FROM files) AS training,
              coalesce(validation_file NOT IN (SELECT id FROM files), 0) AS validation
            FROM jobs WHERE NOT ({_LIVE}) AND (training OR validation)
        """  # noqa: S608
        with self.reading() as connection:
            found = rows(connection, words)
        return {str(one["id"]): (bool(one["training"]), bool(one["validation"])) for one in found}


def _job(connection: Any, id: str, owner: str | None, param: str = "fine_tuning_job_id") -> Job:  # noqa: A002
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
    if row is None or (owner is not None and row["owner"] != owner):
        raise Refusal(404, f"no job {id[:80]!r} is here", param=param, code="fine_tune_not_found")
    return Job.of(row)


def _counts(connection: Any) -> dict[str, int]:
    found = rows(connection, "SELECT status, count(*) FROM jobs GROUP BY status")
    return {str(status): int(count) for status, count in found}


def _former(connection: Any, owner: str, digest: str | None, since: int) -> Any:
    if digest is None:
        return None
    words = "SELECT * FROM creates WHERE owner = ? AND digest = ? AND created >= ?"
    return connection.execute(words, (owner, digest, since)).fetchone()


def _check_quota(connection: Any, key: Key) -> None:
    most = key.limits.jobs
    words = f"SELECT count(*) FROM jobs WHERE owner = ? AND {_LIVE}"  # noqa: S608
    if most is not None and connection.execute(words, (key.owner,)).fetchone()[0] >= most:
        raise Refusal(
            403,
            f"{most:,} jobs of this key have not ended, as many as it may have; wait for one, or cancel one",
            code="quota_exceeded",
        )


def _check_lawful(job: Job, wanted: Wanted, *, again: bool) -> None:
    """Raise Refusal where a job in this state cannot be asked for that."""
    verb = {"cancel": "cancelled", "pause": "paused", "run": "resumed"}[wanted]
    reason = None
    if job.status in ENDED:
        if not (again and wanted == "cancel" and job.status == "cancelled"):
            reason = f"it is {job.status}"
    elif wanted == "run" and job.status != "paused" and job.wanted != "pause":
        reason = None if again else f"it is {job.status}, not paused"
    elif wanted == "pause":
        if job.status == "validating_files":
            reason = "its files are still being validated; ask again when it is queued"
        elif (job.status == "paused" or job.wanted == "pause") and not again:
            reason = "it is paused, or about to be"
    if reason is None and wanted != "cancel" and job.wanted == "cancel" and job.status not in ENDED:
        reason = "it is about to be cancelled"
    if reason is not None:
        raise Refusal(
            400,
            f"{job.id} cannot be {verb}: {reason}",
            param="fine_tuning_job_id",
            code="invalid_job_state",
            headers=_NO_RETRY,
        )
