"""Training where the configuration says: in this process, or in several ranks that it starts and watches.

It knows neither tensors nor rows; without ranks it is `hone.recipes.train` itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
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
from hone.errors import ConfigError, HoneError, LockedError, OutOfMemory, Stopped
from hone.recipes.trained import Trained, run_path
from hone.runs.events import Event, Listener, read_events
from hone.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hone.engine.callbacks import Callback


def train(
    resolved: Resolved,
    *,
    fresh: bool = False,
    accept_changes: bool = False,
    command: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Train as `resolved` says; the same call resumes what was begun in the same folder.

    Raises what `hone.recipes.train.train` raises, and RankLost where one of several ranks died or hung.
    """
    compute = resolved.config.compute
    _refuse_foreign_launcher()
    local = ranks_here(compute)
    one_process = local == 1 and compute.nnodes == 1 and compute.launcher == "local"
    if one_process and compute.strategy != "fsdp" and not compute.deepspeed:
        from hone.recipes.train import train as alone

        return alone(
            resolved,
            fresh=fresh,
            accept_changes=accept_changes,
            command=command,
            listeners=listeners,
            callbacks=callbacks,
        )
    if callbacks:
        raise ConfigError(
            "callbacks are called in this process, and several ranks train in others",
            remedy="set compute.nproc=1, or leave the callbacks out and read the run's events",
        )
    job = Job.of(resolved, command=list(command), fresh=fresh, accept_changes=accept_changes)
    for attempt in itertools.count():
        try:
            return _Launch(job, resolved, local, attempt, listeners).run()
        except OutOfMemory as error:
            if error.smaller is None:
                raise
            job = dataclasses.replace(job, fresh=False, accept_changes=False, lower=error.smaller)
    raise AssertionError("it returns, or raises")


def _refuse_foreign_launcher() -> None:
    """Raise ConfigError where something else has started this command several times over."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ConfigError(
            "this was started by torchrun, and Hone starts its ranks itself",
            remedy="run `hone train` alone, with --nproc N, and on several machines with --nnodes, --node-rank and "
            "--rdzv-endpoint as torchrun takes them",
        )


def ranks_here(compute: ComputeSection) -> int:
    """How many ranks run on this machine."""
    if compute.nproc != "auto":
        return compute.nproc
    return max(1, _gpus(compute))


def _gpus(compute: ComputeSection) -> int:
    """GPUs that ranks may take."""
    return 0 if compute.device == "cpu" else visible_gpus()


class _Launch:
    """One start of all ranks."""

    def __init__(
        self,
        job: Job,
        resolved: Resolved,
        local: int,
        attempt: int,
        listeners: Sequence[Listener],
    ) -> None:
        self._job = job
        self._local = local
        self._attempt = attempt
        self._compute = resolved.config.compute
        self._listeners = list(listeners)
        self._path = run_path(resolved.config)
        self._gang: Gang | None = None

    def run(self) -> Trained:
        """Start, listen, and say how it ended."""
        try:
            told = self._on_ray() if self._compute.launcher == "ray" else self._here()
        except HoneError as error:
            if self._is_first and not isinstance(error, Stopped):
                self._write_failure(error)
            raise
        return Trained(
            folder=Path(told["folder"]),
            steps=told["steps"],
            loss=told["loss"],
            validation_loss=told["validation_loss"],
            seconds=told["seconds"],
        )

    def _here(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="hone-ranks-") as meeting:
            self._gang = Gang(self._job, self._places(Path(meeting)), self._hear)
            self._gang.run()
        if not self._is_first:  # no event of the first rank said where
            self._gang.write_logs(RunFolder(self._path).log_file)
        return result_of(self._gang)

    def _on_ray(self) -> dict[str, Any]:
        from hone.backends.ray_cluster import RayCluster

        on_gpu = _gpus(self._compute) > 0
        cluster = RayCluster(
            self._job, self._local, folder=self._path, on_gpu=on_gpu, hear=self._hear
        )
        return cluster.run()

    @property
    def _is_first(self) -> bool:
        """Whether the first rank is on this machine."""
        return self._compute.node_rank == 0 or self._compute.nnodes == 1

    def _places(self, meeting: Path) -> list[Place]:
        on_gpu = _gpus(self._compute) >= self._local
        store, before = str(meeting / "store"), 0
        if self._compute.nnodes > 1:
            host, _, port = str(self._compute.rdzv_endpoint).rpartition(":")
            # A start anew meets at another port: nobody takes a store that is about to end for the new one.
            store = f"tcp://{host}:{int(port) + self._attempt}"
            before = self._compute.node_rank * self._local
        return [
            Place(
                rank=before + local_rank,
                world=self._compute.nnodes * self._local,
                local_rank=local_rank,
                local_world=self._local,
                store=store,
                on_gpu=on_gpu,
                gpu=local_rank,
            )
            for local_rank in range(self._local)
        ]

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
