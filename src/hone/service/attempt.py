"""One attempt at one job: prepared, started, followed into the store, stopped when asked, given back. Once, whoever dies.

It holds the job by its lease. Where the lease cannot be kept, the job's process is ended before the lease is: nobody
else can have the job while it lives. It knows no HTTP and no tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from hone.errors import DiskError, EnvironmentFault, HoneError, LockedError
from hone.runs.disk import Disk, sha256_of
from hone.service.death import Kills, cause_of
from hone.service.ending import AGAIN, error_object
from hone.service.executor import Executor, Running
from hone.service.follow import Batch, Follower, Progress
from hone.service.names import FILE
from hone.service.order import RUN, Outcome
from hone.service.preparation import Preparation
from hone.service.records import Job, NewEvent
from hone.service.starts import Starts
from hone.service.store import Store
from hone.service.tables.database import StoreBusy
from hone.service.tables.follow import LostLease

logger = logging.getLogger("hone")

_LOOK_SECONDS: Final = 0.25
_MOST_STARTS: Final = 20
_MOST_DEATHS: Final = 3  # without a step between them
Asked = Literal["cancel", "pause", "end"]


@dataclass(frozen=True)
class Patience:
    """For how long what may be asked of a job's process."""

    lease_s: float = 20.0
    """How long a job stays with a worker that gives no sign of life."""
    cancel_s: float = 5.0
    """To end the step that it is in, when it is cancelled."""
    pause_s: float = 60.0
    """The same, when it is paused or its worker ends."""


class Attempt:
    """A worker's hold on one job. `run` returns when the job was given back, or lost."""

    def __init__(
        self,
        store: Store,
        job: Job,
        preparation: Preparation,
        executor: Executor,
        *,
        patience: Patience,
        should_end: Callable[[], bool],
    ) -> None:
        self._store = store
        self._job = job
        self._preparation = preparation
        self._executor = executor
        self._patience = patience
        self._should_end = should_end
        self._folder = preparation.folder(job)
        self._shown = preparation.shown(job)
        self._held_until = time.monotonic() + patience.lease_s
        self._renewed = time.monotonic()
        self._running: Running | None = None
        self._follower: Follower | None = None
        self._offset = job.events_offset

    def run(self) -> Job | None:
        """Bring the job to an end, or as far as it may go; the job as given back, None where it was lost."""
        try:
            self._executor.end_former(self._folder)
            try:
                self._preparation.prepare(self._job)
            except (DiskError, HoneError) as error:
                return self._release("failed", error=error_object(error, self._shown))
            self._follower = self._new_follower()
            return self._go()
        except LostLease:
            return None
        except EnvironmentFault:  # of the store itself: nothing can be told to it
            raise
        except Exception:
            logger.exception("%s", self._job.id)
            fault = _fault("internal_error", "a fault of the service; its operator's log has more")
            return self._release("failed", error=fault)
        finally:
            if self._running is not None:
                self._running.kill()

    def _new_follower(self) -> Follower:
        return Follower(self._folder / RUN / "events.jsonl", offset=self._offset, shown=self._shown)

    def _go(self) -> Job:
        outcome = Outcome.read(self._folder)
        if outcome is not None and outcome.ended == "finished":
            return self._finish(outcome)  # a worker died between the job's end and its word of it
        self._patiently(self._follow)  # what an earlier start told, and nobody wrote
        starts = Starts(self._folder)
        deaths, last_step = 0, -1
        while True:
            before = Kills.now()
            if starts.begin(self._progress.step) > _MOST_STARTS:
                message = (
                    f"the job was started {_MOST_STARTS} times without coming further than step "
                    f"{self._progress.step}, and each time what ran it ended"
                )
                return self._release("failed", error=_fault("process_died", message))
            Outcome.forget(self._folder)
            try:
                self._running = self._executor.start(self._folder)
            except EnvironmentFault as error:
                self._say(NewEvent(error.what, level="warn", mark=f"not-started:{self._job.fence}"))
                return self._release("queued")
            asked, code = self._attend(self._running)
            self._running.kill()
            self._patiently(self._follow)
            outcome = Outcome.read(self._folder)
            if outcome is not None and outcome.ended == "finished":
                return self._finish(outcome)
            if asked is not None:
                starts.forget()
                return self._release(
                    {"cancel": "cancelled", "pause": "paused", "end": "queued"}[asked]
                )
            error = self._error(outcome, code, before)
            step = self._progress.step
            deaths = deaths + 1 if step <= last_step else 1
            last_step = max(step, last_step)
            if error["code"] not in AGAIN or deaths >= _MOST_DEATHS:
                return self._release("failed", error=error)
            message = f"{error['message']}; going on from the last checkpoint"
            self._say(
                NewEvent(message, level="warn", mark=f"death:{self._job.fence}:{step}:{deaths}")
            )

    def _attend(self, running: Running) -> tuple[Asked | None, int]:
        """Follow the process to its end: what it was asked on the way, and its exit code."""
        asked: Asked | None = None
        until = 0.0
        while True:
            code = running.poll()
            if code is not None:
                return asked, code
            self._keep_up()
            if time.monotonic() >= self._held_until:
                running.kill()
                raise LostLease("the lease could not be kept")
            wish = self._wish()
            if wish == "cancel" and asked != "cancel":
                until = min(until or float("inf"), time.monotonic() + self._patience.cancel_s)
                if asked is None:
                    running.stop()
                asked = "cancel"
            elif wish is not None and asked is None:
                asked, until = wish, time.monotonic() + self._patience.pause_s
                running.stop()
            if asked is not None and time.monotonic() >= until:
                running.kill()
                return asked, running.poll() or 0
            time.sleep(_LOOK_SECONDS)

    def _wish(self) -> Asked | None:
        """What the owner, or the end of this worker, asks of the process now."""
        try:
            wanted = self._store.job(self._job.id, None).wanted
        except (StoreBusy, DiskError):
            return None
        if wanted != "run":
            return wanted
        return "end" if self._should_end() else None

    def _keep_up(self) -> None:
        """Write what happened, and keep the lease. A store that is busy or full is tried again until the lease ends."""
        with contextlib.suppress(StoreBusy, DiskError):
            if time.monotonic() - self._renewed > self._patience.lease_s / 4:
                self._renew()
            self._follow()

    def _renew(self) -> None:
        began = time.monotonic()
        if not self._store.renew(self._job.id, self._job.fence, self._patience.lease_s):
            raise LostLease("another worker may have the job")
        self._renewed = began
        # Ended a little before the store thinks so: the process must be gone by then.
        self._held_until = began + self._patience.lease_s * 0.8

    def _follow(self) -> bool:
        """Write all that the run has told since; whether there was anything."""
        wrote = False
        while True:
            assert self._follower is not None
            batch = self._follower.read()
            if batch.offset == self._offset:
                return wrote
            try:
                self._write(batch)
            except (StoreBusy, DiskError):
                self._follower = self._new_follower()  # what was read is not told
                raise
            self._offset = batch.offset
            wrote = True

    def _write(self, batch: Batch) -> None:
        progress = self._progress
        left = progress.seconds_left
        self._store.add_events(
            self._job.id,
            self._job.fence,
            batch.events,
            offset=batch.offset,
            checkpoints=[self._preparation.relative(one) for one in batch.checkpoints],
            progress=progress.told(),
            estimated_finish=None if left is None else int(time.time() + left),
        )
        if batch.checkpoints:
            self._forget_rotated()

    def _forget_rotated(self) -> None:
        """A run keeps its newest checkpoints only (`train.save_total_limit`); a name that is listed must answer."""
        known, _ = self._store.checkpoints(self._job.id, limit=1000)
        gone = [one.step for one in known if not (self._store.root / one.path).is_dir()]
        if gone:
            self._store.forget_checkpoints(self._job.id, self._job.fence, gone)

    @property
    def _progress(self) -> Progress:
        assert self._follower is not None
        return self._follower.progress

    def _error(self, outcome: Outcome | None, code: int, before: Kills) -> dict[str, Any]:
        error = None if outcome is None else outcome.error
        if isinstance(error, LockedError):
            return _fault("process_died", error.what)
        if error is not None and outcome is not None and outcome.ended == "failed":
            return error_object(error, self._shown)
        return _fault(*cause_of(code, before, Kills.now()))

    def _finish(self, outcome: Outcome) -> Job:
        self._patiently(self._follow)
        assert self._follower is not None
        is_call = outcome.step is not None
        return self._release(
            "succeeded",
            trained_tokens=self._progress.trained_tokens,
            model_path=None if is_call else f"jobs/{self._job.id}/{RUN}",
            result_files=[self._keep_csv()],
            gradient_steps=outcome.steps,
            step=outcome.step,
        )

    def _keep_csv(self) -> str:
        """The result file, under a name that follows from the job's: written twice it is one."""
        assert self._follower is not None
        data = self._follower.csv().encode()
        name = FILE + hashlib.sha256(f"results of {self._job.id}".encode()).hexdigest()[:32]
        path = self._store.root / "files" / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        Disk().replace_file(path, data)
        if not self._store.has_file(name):
            self._store.add_file(
                self._job.owner, id=name, purpose="fine-tune-results", filename="step_metrics.csv",
                bytes=len(data), sha256=sha256_of(path),
            )  # fmt: skip
        return name

    def _say(self, event: NewEvent) -> None:
        self._patiently(lambda: self._store.add_events(self._job.id, self._job.fence, [event]))

    def _release(self, status: str, **about: Any) -> Job:
        def release() -> Job:
            return self._store.release(self._job.id, self._job.fence, status, **about)

        return self._patiently(release)

    def _patiently(self, write: Callable[[], Any]) -> Any:
        """Write, however long the store is busy or full, as long as the job is held."""
        while True:
            try:
                return write()
            except (StoreBusy, DiskError):
                if time.monotonic() >= self._held_until:
                    raise LostLease(
                        "the store could not be written while the job was held"
                    ) from None
                time.sleep(_LOOK_SECONDS)


def _fault(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None}
