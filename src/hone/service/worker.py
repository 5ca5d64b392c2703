"""A worker: one slot of one machine, which takes a job, brings it to its end, and takes the next.

`python -m hone.service.worker --root FOLDER --slot N --model NAME=FOLDER …`. It holds its slot by a lock, so that a new
worker of the same name knows that the former one is dead and goes on with its job at once. SIGTERM, or with
`--lifeline` the end of its standard input, ends it: the job is saved and given back to the queue. No torch is loaded.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from hone.errors import DiskError, HoneError, LockedError
from hone.runs.lock import RunLock
from hone.service.attempt import Attempt, Patience
from hone.service.executor import Executor, ThisMachine
from hone.service.lifeline import hold
from hone.service.operator import named_models
from hone.service.preparation import Preparation
from hone.service.records import Job
from hone.service.store import Store
from hone.service.tables.database import StoreBusy

logger = logging.getLogger("hone")

_IDLE_SECONDS: Final = 0.5
_SLOT_PATIENCE_SECONDS: Final = 90.0


class Worker:
    """Works off the queue of a store, a job at a time."""

    def __init__(
        self,
        preparation: Preparation,
        executor: Executor,
        *,
        slot: str = "0",
        patience: Patience | None = None,
        end: threading.Event | None = None,
    ) -> None:
        """`end`, once set, ends it, after giving back what it has, saved."""
        self._store = preparation.store
        self._preparation = preparation
        self._executor = executor
        self._patience = patience or Patience()
        self.name = f"{platform.node()}/{slot}"
        folder = preparation.root / "workers"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = RunLock(folder / f"{slot}.lock")
        self._end = end or threading.Event()

    def run(self, *, until_idle: bool = False) -> None:
        """Work until the end; with `until_idle`, until no job can be claimed. Raises LockedError where the slot is taken."""
        self._take_slot()
        try:
            self._store.abandon(self.name)
            while not self._end.is_set():
                job = self._claim()
                if job is not None:
                    self._work(job)
                elif until_idle:
                    return
                else:
                    self._end.wait(_IDLE_SECONDS)
        finally:
            self._lock.release()

    def _claim(self) -> Job | None:
        try:
            return self._store.claim(self.name, self._patience.lease_s)
        except (StoreBusy, DiskError) as error:
            logger.warning("%s", error)
            return None

    def _work(self, job: Job) -> None:
        logger.info("%s: attempt %d", job.id, job.attempts)
        attempt = Attempt(
            self._store, job, self._preparation, self._executor,
            patience=self._patience, should_end=self._end.is_set,
        )  # fmt: skip
        done = attempt.run()
        logger.info("%s: %s", job.id, "lost to another worker" if done is None else done.status)

    def _take_slot(self) -> None:
        """A former worker of this slot may be about to end."""
        until = time.monotonic() + _SLOT_PATIENCE_SECONDS
        while True:
            try:
                return self._lock.acquire()
            except LockedError:
                if time.monotonic() >= until or self._end.is_set():
                    raise
                time.sleep(_IDLE_SECONDS)


def main(words: Sequence[str] | None = None) -> int:
    """Work until told to end."""
    os.umask(0o077)
    said = _parser().parse_args(words)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s worker {said.slot}: %(message)s"
    )
    asked = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        store = Store(Path(said.root))
        preparation = Preparation(store, named_models(said.model), _settings(said.compute))
        worker = Worker(
            preparation,
            _executor(said),
            slot=said.slot,
            patience=Patience(lease_s=said.lease),
            end=asked,
        )
        if said.lifeline:
            hold(sys.stdin.fileno(), asked.set)
        worker.run(until_idle=said.until_idle)
    except HoneError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


def _settings(said: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE`, values as JSON where they are that."""
    found: dict[str, Any] = {}
    for one in said:
        name, _, value = one.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _executor(said: argparse.Namespace) -> Executor:
    if said.ray is not None:
        from hone.service.ray_executor import RayMachines

        return RayMachines(said.ray or None, on_gpu=said.device is not None)
    return ThisMachine(device=said.device, threads=said.threads)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hone.service.worker", description=__doc__)
    parser.add_argument("--root", required=True, help="the service's folder")
    parser.add_argument("--slot", default="0", help="this worker's name on this machine")
    parser.add_argument("--model", action="append", default=[], help="NAME=FOLDER_OR_HUB_ID")
    parser.add_argument(
        "--compute", action="append", default=[], help="KEY=VALUE for trainable models"
    )
    parser.add_argument(
        "--device", help="index of the GPU that jobs get; none: all that are visible"
    )
    parser.add_argument("--threads", type=int, help="CPU threads of a job")
    parser.add_argument("--lease", type=float, default=Patience.lease_s, help="seconds")
    parser.add_argument(
        "--ray", nargs="?", const="", help="run jobs on a Ray cluster (its address)"
    )
    parser.add_argument("--lifeline", action="store_true", help="end when standard input does")
    parser.add_argument("--until-idle", action="store_true", help="end when the queue is empty")
    return parser


if __name__ == "__main__":
    sys.exit(main())
