"""Training where the configuration says: in this process, or in several ranks that it starts and watches.

It knows neither tensors nor rows; without ranks it is `hone.recipes.train` itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.backends.gang import Gang
from hone.backends.gpus import visible_gpus
from hone.backends.job import Job, Place
from hone.backends.report import result_of
from hone.config.layers import Resolved
from hone.config.sections import ComputeSection
from hone.errors import HoneError, LockedError, OutOfMemory, Stopped
from hone.recipes.trained import Trained, run_path
from hone.runs.events import Event, Listener, read_events
from hone.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping


def train(
    resolved: Resolved,
    *,
    fresh: bool = False,
    accept_changes: bool = False,
    command: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
) -> Trained:
    """Train as `resolved` says; the same call resumes what was begun in the same folder.

    Raises what `hone.recipes.train.train` raises, and RankLost where one of several ranks died or hung.
    """
    world = ranks_here(resolved.config.compute)
    compute = resolved.config.compute
    if world == 1 and compute.strategy != "fsdp" and not compute.deepspeed:
        from hone.recipes.train import train as alone

        return alone(
            resolved,
            fresh=fresh,
            accept_changes=accept_changes,
            command=command,
            listeners=listeners,
        )
    job = Job.of(resolved, command=list(command), fresh=fresh, accept_changes=accept_changes)
    while True:
        try:
            return _Launch(job, resolved, world, listeners).run()
        except OutOfMemory as error:
            if error.smaller is None:
                raise
            job = dataclasses.replace(job, fresh=False, accept_changes=False, lower=error.smaller)


def ranks_here(compute: ComputeSection) -> int:
    """How many ranks run on this machine."""
    if compute.nproc != "auto":
        return compute.nproc
    return max(1, visible_gpus())


class _Launch:
    """One start of all ranks."""

    def __init__(
        self, job: Job, resolved: Resolved, world: int, listeners: Sequence[Listener]
    ) -> None:
        self._job = job
        self._world = world
        self._listeners = list(listeners)
        self._path = run_path(resolved.config)
        self._gang: Gang | None = None

    def run(self) -> Trained:
        """Start, listen, and say how it ended."""
        with tempfile.TemporaryDirectory(prefix="hone-ranks-") as meeting:
            on_gpu = visible_gpus() >= self._world
            places = [
                Place(
                    rank=rank,
                    world=self._world,
                    local_rank=rank,
                    local_world=self._world,
                    store=str(Path(meeting) / "store"),
                    on_gpu=on_gpu,
                )
                for rank in range(self._world)
            ]
            self._gang = Gang(self._job, places, self._hear)
            self._gang.run()
        try:
            told = result_of(self._gang)
        except HoneError as error:
            if not isinstance(error, Stopped):
                self._write_failure(error)
            raise
        return Trained(
            folder=Path(told["folder"]),
            steps=told["steps"],
            loss=told["loss"],
            validation_loss=told["validation_loss"],
            seconds=told["seconds"],
        )

    def _hear(self, event: Event) -> None:
        """Pass an event of the first rank on; a face that fails is dropped and stops nothing."""
        if event.name == "started" and self._gang is not None:
            self._gang.write_logs(RunFolder(self._path).log_file)
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Stopped:
                raise
            except Exception as error:  # noqa: BLE001 - of any kind
                self._listeners.remove(listener)
                about: Mapping[str, Any] = {
                    "code": "listener-dropped",
                    "message": f"a display failed and gets no more events ({type(error).__name__}: "
                    f"{error}); the run goes on",
                }
                self._hear(Event(name="notice", time=event.time, fields=about))

    def _write_failure(self, error: HoneError) -> None:
        """Keep why the run failed, where no rank lived to write it."""
        folder = RunFolder(self._path)
        if not folder.is_run:
            return
        last = None
        for event in read_events(folder.events_file):
            last = event
        if last is not None and last.name == "failed":
            return
        with contextlib.suppress(LockedError), folder.lock(), folder.events() as log:
            for listener in self._listeners:
                log.listen(listener)
            log.say("failed", error=error.what, exit_code=error.exit_code)
