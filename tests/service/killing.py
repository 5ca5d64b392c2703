"""A queue whose workers are killed at random instants, beside the same queue left alone."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

from hone.service.executor import processes_of
from hone.service.records import Job
from hone.service.store import Store
from tests.folders import model_folder
from tests.service.jobs import BOB, store_of
from tests.service.works import asked, messages, worker

STEPS = 30
CONFIG = {"train": {"max_steps": STEPS, "save_steps": 3}, "tuning": {"lora": {"dropout": 0.1}}}
_PATIENCE_SECONDS = 900.0


def queue_of(root: Path, jobs: int, seeds: int) -> tuple[Store, list[Job]]:
    """A store with so many jobs, whose seeds come round."""
    root.mkdir(parents=True)
    model_folder(root / "model")
    store = store_of(root, max_running=9)
    return store, [asked(store, config=CONFIG, seed=n % seeds) for n in range(jobs)]


def left_alone(root: Path, seeds: int) -> list[bytes]:
    """The weights of a job of each seed, from a queue that nobody disturbs."""
    store, jobs = queue_of(root, seeds, seeds)
    process = worker(root, "--until-idle")
    assert process.wait(timeout=_PATIENCE_SECONDS) == 0
    assert all(store.job(job.id).status == "succeeded" for job in jobs)
    return [weights(root, job) for job in jobs]


def weights(root: Path, job: Job) -> bytes:
    return (root / "jobs" / job.id / "run" / "adapter_model.safetensors").read_bytes()


def killed(root: Path, store: Store, jobs: list[Job], kills: int, seed: int = 11) -> int:
    """Let workers work, killing one at a random instant each time, until all have ended; how many were killed.

    Most instants are drawn around an event of the run, since a run of this size is mostly its start; now and then the
    job's own process is killed instead, or both.
    """
    rng = random.Random(seed)
    done = 0
    until = time.monotonic() + _PATIENCE_SECONDS + 60 * kills
    while not all(store.job(job.id).has_ended for job in jobs):
        assert time.monotonic() < until, "the queue does not end"
        process = worker(root, "--until-idle")
        try:
            if done >= kills:
                assert process.wait(timeout=_PATIENCE_SECONDS) == 0
                continue
            _until_something_happens(rng, root, process.pid, jobs)
            for job in jobs if rng.random() < 0.3 else []:
                for pid in processes_of(root / "jobs" / job.id):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if process.poll() is None:
                process.kill()
                done += 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
    return done


def _until_something_happens(rng: random.Random, root: Path, pid: int, jobs: list[Job]) -> None:
    """Wait for a few more lines in the runs' events, or only for a moment."""
    if rng.random() < 0.25:
        time.sleep(rng.random() * 3)
        return
    wanted = _lines(root, jobs) + rng.choice([1, 1, 3, 8, 12, 20, 40, 70])
    until = time.monotonic() + 90
    while _lines(root, jobs) < wanted and time.monotonic() < until:
        if not Path(f"/proc/{pid}/fd").exists():
            return
        time.sleep(0.01)
    time.sleep(rng.random() * 0.2)


def _lines(root: Path, jobs: list[Job]) -> int:
    total = 0
    for job in jobs:
        with contextlib.suppress(OSError):
            events = root / "jobs" / job.id / "run" / "events.jsonl"
            total += events.read_bytes().count(b"\n")
    return total


def check(root: Path, store: Store, jobs: list[Job], want: list[bytes]) -> None:
    """Every job ended once, in the bits of its seed; events without gap or repeat; nothing left over."""
    for number, job in enumerate(jobs):
        now = store.job(job.id)
        assert (now.status, now.error) == ("succeeded", None), now.error
        assert weights(root, job) == want[number % len(want)], f"job {number}: other weights"
        told = messages(store, job.id)
        steps = [m.partition("/")[0] for m in told if m.startswith("Step")]
        assert steps == [f"Step {n}" for n in range(1, STEPS + 1)]
        for once in ("Fine-tuning job started", "The job has successfully completed"):
            assert told.count(once) == 1, once
        assert told[-1] == "The job has successfully completed"
        points = [one.step for one in store.checkpoints(job.id)[0]][::-1]
        assert points == list(range(3, STEPS + 1, 3))
        rows = (root / "files" / now.result_files[0]).read_text().splitlines()
        assert [row.partition(",")[0] for row in rows[1:]] == [str(n) for n in range(1, STEPS + 1)]
        assert len(now.result_files) == 1
        left = {path.name for path in (root / "jobs" / job.id).iterdir()}
        assert left == {"job.json", "job.log", "outcome.json", "run", "train.jsonl"}
        assert not list((root / "jobs").rglob(".*")), "half files"
        assert processes_of(root / "jobs" / job.id) == []
    owed = [hook.job for hook in store.due_hooks(limit=1000)]
    assert sorted(owed) == sorted(job.id for job in jobs)
    known = {file.id for file in store.files(BOB)[0]}
    assert {path.name for path in (root / "files").iterdir()} == known
