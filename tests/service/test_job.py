"""The real process of a job, and real workers: killed, stopped, taken over; the bits of a run that nobody disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from hone.runs.lock import holder
from hone.service.executor import ThisMachine, environment, processes_of
from hone.service.order import Outcome
from hone.service.preparation import Preparation
from hone.service.records import Job
from tests.folders import model_folder
from tests.service.jobs import BOB, store_of
from tests.service.works import asked, messages, worker

pytestmark = pytest.mark.timeout(900)

WEIGHTS = "adapter_model.safetensors"
# Long enough to be met on its way, with a checkpoint soon.
LONG = {"train": {"max_steps": 40_000, "save_steps": 10}}
STEPS = 600  # some seconds of training, so that it can be met on its way
SHORT = {"train": {"max_steps": STEPS, "save_steps": 60}}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    model_folder(tmp_path / "model")
    return tmp_path


def wait_for(what: Callable[[], object], seconds: float = 240.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


def events(root: Path, job: Job) -> bytes:
    path = root / "jobs" / job.id / "run" / "events.jsonl"
    return path.read_bytes() if path.exists() else b""


@contextlib.contextmanager
def running(root: Path, *words: str, slot: str = "0") -> Generator[subprocess.Popen[bytes]]:
    process = worker(root, *words, slot=slot)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights that a job of SHORT ends with when nothing happens."""
    root = tmp_path_factory.mktemp("undisturbed")
    model_folder(root / "model")
    store = store_of(root)
    job = asked(store, config=SHORT, seed=5)
    with running(root, "--until-idle") as process:
        assert process.wait(timeout=300) == 0
    done = store.job(job.id)
    assert done.status == "succeeded", done.error
    return (root / "jobs" / job.id / "run" / WEIGHTS).read_bytes()


def test_killed_workers_and_processes_end_in_the_same_bits(root: Path, undisturbed: bytes) -> None:
    """The worker is killed, then the job's own process, then the worker is asked to end; each goes on."""
    store = store_of(root)
    job = asked(store, config=SHORT, seed=5)
    with running(root) as process:
        wait_for(lambda: b'"saved"' in events(root, job))
        process.kill()
    wait_for(lambda: not processes_of(root / "jobs" / job.id), 10)  # its lifeline has ended
    with running(root, "--until-idle") as process:
        folder = root / "jobs" / job.id
        wait_for(lambda: processes_of(folder) or store.job(job.id).has_ended)
        for pid in processes_of(folder):
            os.kill(pid, signal.SIGKILL)
        assert process.wait(timeout=300) == 0
    done = store.job(job.id)
    assert (done.status, done.error) == ("succeeded", None)
    assert (folder / "run" / WEIGHTS).read_bytes() == undisturbed
    told = [m for m in messages(store, job.id) if m.startswith("Step")]
    assert [m.split("/")[0] for m in told] == [f"Step {n}" for n in range(1, STEPS + 1)]
    assert [one.step for one in store.checkpoints(job.id)[0]] == list(range(STEPS, 0, -60))
    assert not (folder / "tmp").exists()


def test_pause_frees_the_machine_and_resume_ends_in_the_same_bits(
    root: Path, undisturbed: bytes
) -> None:
    store = store_of(root)
    job = asked(store, config={"train": {**SHORT["train"], "save_steps": 1000}}, seed=5)
    folder = root / "jobs" / job.id
    with running(root):
        wait_for(lambda: b'"step"' in events(root, job))
        store.want(job.id, BOB, "pause")
        wait_for(lambda: store.job(job.id).status == "paused")
        assert processes_of(folder) == []
        assert b'"finished"' not in events(root, job), "it must have been met on its way"
        store.want(job.id, BOB, "run")
        wait_for(lambda: store.job(job.id).has_ended)
    done = store.job(job.id)
    assert (done.status, done.attempts) == ("succeeded", 2)
    assert (folder / "run" / WEIGHTS).read_bytes() == undisturbed


def test_cancel_ends_within_ten_seconds_and_keeps_checkpoints(root: Path) -> None:
    store = store_of(root)
    job = asked(store, config=LONG)
    folder = root / "jobs" / job.id
    with running(root):
        wait_for(lambda: store.checkpoints(job.id)[0])
        began = time.monotonic()
        store.want(job.id, BOB, "cancel")
        wait_for(lambda: store.job(job.id).status == "cancelled", 10)
        assert time.monotonic() - began < 10
        assert processes_of(folder) == []
    kept = store.checkpoints(job.id)[0]
    assert kept
    assert (root / kept[0].path / "manifest.json").is_file()
    (again,) = [asked(store, model=kept[0].name, config={"train": {"max_steps": 2}})]
    with running(root, "--until-idle") as process:
        assert process.wait(timeout=300) == 0
    assert store.job(again.id).status == "succeeded", store.job(again.id).error


@pytest.mark.fault(14)
def test_a_worker_that_hangs_is_fenced_off(root: Path) -> None:
    """The first worker stands still with its job's process alive; a second one takes over, alone."""
    store = store_of(root)
    job = asked(store, config=LONG)
    folder = root / "jobs" / job.id
    with running(root) as first:
        wait_for(lambda: b'"step"' in events(root, job))
        (former,) = processes_of(folder)
        first.send_signal(signal.SIGSTOP)
        with running(root, slot="1"):
            wait_for(lambda: store.job(job.id).fence == 2, 90)
            wait_for(lambda: former not in processes_of(folder), 30)
            wait_for(lambda: processes_of(folder))
            first.send_signal(signal.SIGCONT)
            wait_for(lambda: b'"resumed"' in events(root, job))
            assert len(processes_of(folder)) == 1
            store.want(job.id, BOB, "cancel")
            wait_for(lambda: store.job(job.id).status == "cancelled", 60)


def test_a_worker_ends_with_its_lifeline_and_gives_its_job_back(root: Path) -> None:
    store = store_of(root)
    job = asked(store, config=LONG)
    with running(root, "--lifeline") as process:
        wait_for(lambda: b'"step"' in events(root, job))
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=300) == 0
    assert store.job(job.id).status == "queued"
    assert b'"stopped"' in events(root, job)
    assert processes_of(root / "jobs" / job.id) == []


def test_two_workers_of_one_slot(root: Path) -> None:
    """The second waits for the first one's end, and takes nothing."""
    store_of(root)
    with running(root):
        wait_for(lambda: holder(root / "workers" / "0.lock"))
        with running(root) as second:
            wait_for(lambda: handles(second.pid, signal.SIGTERM))
            time.sleep(1)
            assert second.poll() is None
            second.terminate()
            assert second.wait(timeout=30) == 4


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_a_jobs_process_knows_no_secret_of_the_server(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "HONE_API_KEY", "AWS_SECRET_ACCESS_KEY", "X"):
        monkeypatch.setenv(name, "planted-secret")
    (root / "home" / ".cache" / "huggingface").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(root / "home"))
    told = environment(root / "tmp", {})
    assert "planted-secret" not in told.values()
    assert told["HOME"] == told["TMPDIR"] == str(root / "tmp")
    store = store_of(root)
    job = asked(store, config=LONG)
    assert store.claim("w", 60) is not None
    preparation = Preparation(store, {"tiny": str(root / "model")})
    preparation.prepare(job)
    process = ThisMachine(threads=1).start(preparation.folder(job))
    try:
        wait_for(
            lambda: processes_of(preparation.folder(job)), 10
        )  # its name comes after its start
        (pid,) = processes_of(preparation.folder(job))
        known = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"planted-secret" not in known
        assert os.getpgid(pid) == pid != os.getpgid(0)
        wait_for(lambda: b'"step"' in events(root, job))
        kept = preparation.folder(job) / "tmp" / "cache" / "data"
        assert list(kept.iterdir()), "its prepared rows lie with it"
        process.stop()
        wait_for(lambda: process.poll() is not None, 30)
        assert process.poll() == 143
        outcome = Outcome.read(preparation.folder(job))
        assert outcome is not None
        assert outcome.ended == "stopped"
    finally:
        process.kill()
    assert not kept.exists()
    assert not (root / "cache" / "data").exists()
    text = "".join(
        path.read_text("utf-8", "replace")
        for path in (root / "jobs").rglob("*")
        if path.is_file() and path.suffix in (".json", ".jsonl", ".log", ".yaml")
    )
    assert "planted-secret" not in text


def test_rows_that_training_refuses_fail_the_job_with_line_and_reason(root: Path) -> None:
    store = store_of(root)
    job = asked(store)
    path = root / "files" / job.training_file
    lines = path.read_text().splitlines()
    lines[2] = json.dumps({"messages": [{"role": "bot", "content": "hi"}]})
    path.write_text("\n".join(lines) + "\n")
    with running(root, "--until-idle") as process:
        assert process.wait(timeout=300) == 0
    error = store.job(job.id).error
    assert error is not None
    assert (error["code"], error["param"]) == ("invalid_training_file", "training_file")
    assert "where: train.jsonl:3 /messages/0/role" in error["message"]
    assert str(root) not in json.dumps(error)
