"""A queue whose server, workers and jobs are killed at random instants, beside the same queue left alone."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
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


def killed(root: Path, store: Store, jobs: list[Job], kills: int, seed: int = 11) -> Counter[str]:
    """Let a service with two workers work, killing something at a random instant again and again, until all have ended.

    The server, a worker, a job's own process, or all of them: what was killed, and how often. Most instants are drawn
    around an event of a run, since a run of this size is mostly its start.
    """
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    until = time.monotonic() + _PATIENCE_SECONDS + 60 * kills
    server = service(root)
    try:
        while not all(store.job(job.id).has_ended for job in jobs):
            assert time.monotonic() < until, "the queue does not end"
            if done.total() >= kills:
                time.sleep(0.5)
                continue
            _until_something_happens(rng, root, jobs)
            what = rng.choice(["server", "server", "worker", "worker", "job", "all"])
            folders = [root / "jobs" / job.id for job in jobs]
            victims = {
                "server": [server.pid],
                "worker": _workers(root)[:1],
                "job": [pid for folder in folders for pid in processes_of(folder)][:1],
            }
            victims["all"] = [server.pid, *_workers(root), *victims["job"]]
            for pid in victims[what]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            done[what] += bool(victims[what])
            if server.pid in victims[what]:
                server.wait()
                server = service(root)
    finally:
        server.terminate()
        code = server.wait(timeout=120)
        for pid in _workers(root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert code in (0, 143, -signal.SIGTERM)
    return done


def service(root: Path) -> subprocess.Popen[bytes]:
    """A server with two workers, in a session of its own."""
    environment = {**os.environ, "HONE_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "-m", "hone", "service", "--root", str(root), "--model", f"tiny={root / 'model'}",
        "--port", "0", "--workers", "2",
    ]  # fmt: skip
    with (root / "server.log").open("ab") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


def _workers(root: Path) -> list[int]:
    """The live workers of a service."""
    found: list[int] = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                words = (place / "cmdline").read_bytes().split(b"\0")
                if b"hone.service.worker" in words and str(root).encode() in words:
                    found.append(int(place.name))
    return found


def _until_something_happens(rng: random.Random, root: Path, jobs: list[Job]) -> None:
    """Wait for a few more lines in the runs' events, or only for a moment."""
    if rng.random() < 0.25:
        time.sleep(rng.random() * 3)
        return
    wanted = _lines(root, jobs) + rng.choice([1, 1, 3, 8, 12, 20, 40, 70])
    until = time.monotonic() + 90
    while _lines(root, jobs) < wanted and time.monotonic() < until:
        if all(path.exists() for path in _outcomes(root, jobs)):
            return
        time.sleep(0.01)
    time.sleep(rng.random() * 0.2)


def _outcomes(root: Path, jobs: list[Job]) -> list[Path]:
    return [root / "jobs" / job.id / "outcome.json" for job in jobs]


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
        listed = store.checkpoints(job.id, limit=100)[0]
        points = [one.step for one in listed][::-1]
        assert points == sorted(set(points))
        # One more stands where a worker ended in good order; of all of them the newest ten are kept.
        assert len(points) == 10
        assert {n for n in range(3, STEPS + 1, 3) if n >= points[0]} <= set(points)
        assert all((root / one.path / "manifest.json").is_file() for one in listed)
        rows = (root / "files" / now.result_files[0]).read_text().splitlines()
        assert [row.partition(",")[0] for row in rows[1:]] == [str(n) for n in range(1, STEPS + 1)]
        assert len(now.result_files) == 1
        left = {path.name for path in (root / "jobs" / job.id).iterdir()}
        assert left <= {"job.json", "job.log", "outcome.json", "run", "starts.json", "train.jsonl"}
        assert not list((root / "jobs").rglob(".*")), "half files"
        assert processes_of(root / "jobs" / job.id) == []
    with store.reading() as connection:
        told = connection.execute("SELECT job, type FROM hooks").fetchall()
    ends = [(job.id, "fine_tuning.job.succeeded") for job in jobs]
    assert sorted(map(tuple, told)) == sorted(ends)
    known = {file.id for file in store.files(BOB)[0]}
    assert {path.name for path in (root / "files").iterdir()} == known
