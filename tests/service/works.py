"""A service's folder with jobs that can be trained, and executors whose processes do what a test says."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hone.service.attempt import Attempt, Patience
from hone.service.executor import ThisMachine
from hone.service.names import FILE, new_id
from hone.service.order import RUN, Outcome
from hone.service.preparation import Preparation
from hone.service.records import Job, NewJob
from hone.service.store import Store
from hone.service.translation import check_config, check_hyperparameters, settle
from tests.folders import chat_rows
from tests.service.jobs import BOB

EXACT = {"compute.threads": 1, "train.precision": "fp32", "compute.micro_batch_tokens": 200}
"""Settings that leave nothing to measurements, so that two runs can have the same bits."""
QUICK = Patience(lease_s=4.0, cancel_s=0.5, pause_s=1.0)


def stored_rows(store: Store, rows: Path) -> str:
    """A file of the service with these rows."""
    data, file = rows.read_bytes(), new_id(FILE)
    (store.root / "files").mkdir(exist_ok=True)
    (store.root / "files" / file).write_bytes(data)
    store.add_file(
        BOB, id=file, purpose="fine-tune", filename="rows.jsonl", bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(), rows=data.count(b"\n"),
    )  # fmt: skip
    return file


def asked(
    store: Store,
    *,
    rows: int = 12,
    seed: int = 0,
    numbers: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    model: str = "tiny",
) -> Job:
    """A queued job over chat rows, as the server leaves it."""
    said = check_hyperparameters(numbers or {"n_epochs": 2, "batch_size": 4}, "hyperparameters")
    settled = settle(
        said, check_config(config or {}), place="hyperparameters", seed=seed, rows=rows, operator=EXACT
    )  # fmt: skip
    file = stored_rows(store, chat_rows(store.root / "rows.jsonl", rows))
    new = NewJob(model, "tiny", {"model": model, **(body or {})}, file, seed=seed)
    job, _ = store.add_job(BOB, new)
    store.ready_job(job.id, settled.hyperparameters, settled.config)
    return store.job(job.id)


class Script:
    """A process that is none: its events stand in the run's file as the test lets them happen."""

    def __init__(self, folder: Path, plan: Callable[[Script], int | None]) -> None:
        self.folder = folder
        self.looks = 0
        self.stops = 0
        self.is_killed = False
        self._plan = plan
        self._code: int | None = None
        (folder / RUN).mkdir(exist_ok=True)

    def poll(self) -> int | None:
        if self._code is None:
            self.looks += 1
            self._code = self._plan(self)
        return self._code

    def stop(self) -> None:
        self.stops += 1

    def kill(self) -> None:
        self.is_killed = True
        if self._code is None:
            self._code = -9

    def tell(self, event: str, /, **fields: Any) -> None:
        with (self.folder / RUN / "events.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, "time": 1.5e9 + self.looks, **fields}) + "\n")

    def step(self, number: int, of: int = 4) -> None:
        self.tell("step", step=number, steps=of, loss=9.0 - number, tokens=10, seconds=0.1)

    def save(self, step: int, *, keep: int = 3) -> None:
        """A checkpoint, and no more of them than are kept."""
        folder = self.folder / RUN / "checkpoints"
        (folder / f"step-{step:08d}").mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.iterdir())[:-keep]:
            old.rmdir()
        self.tell("saved", step=step, path=str(folder / f"step-{step:08d}"))

    def finish(self, steps: int = 4) -> int:
        Outcome("finished", steps, 1.0).write(self.folder)
        return 0


class Scripted:
    """An executor of scripts, one for each start."""

    def __init__(self, *plans: Callable[[Script], int | None]) -> None:
        self._plans = list(plans)
        self.started: list[Script] = []

    def start(self, folder: Path) -> Script:
        self.started.append(Script(folder, self._plans.pop(0)))
        return self.started[-1]

    def end_former(self, folder: Path) -> None:
        ThisMachine().end_former(folder)


def attempt(
    store: Store,
    executor: Any,
    *,
    patience: Patience = QUICK,
    should_end: Callable[[], bool] = bool,
) -> Job | None:
    """Claim the next job and attempt it with an executor; `bool` never asks to end."""
    job = store.claim("w", patience.lease_s)
    assert job is not None
    preparation = Preparation(store, {"tiny": str(store.root / "model")})
    return Attempt(
        store, job, preparation, executor, patience=patience, should_end=should_end
    ).run()


def messages(store: Store, job: str) -> list[str]:
    """All that a job's events say, oldest first."""
    return [event.message for event in store.events(job, limit=10_000)[0]][::-1]


def worker(root: Path, *words: str, base: str = "", slot: str = "0") -> subprocess.Popen[bytes]:
    """A worker's process, in a session of its own."""
    environment = {**os.environ, "HONE_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    command: Sequence[str] = [
        sys.executable, "-m", "hone.service.worker", "--root", str(root), "--slot", slot,
        "--model", f"tiny={base or root / 'model'}", "--lease", "10", *words,
    ]  # fmt: skip
    with (root / "worker.log").open("ab") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stderr=log, start_new_session=True
        )
