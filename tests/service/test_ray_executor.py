"""Jobs as actors of a Ray cluster: the same process, ended with the worker that asked for it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from hone.service.executor import processes_of
from hone.service.store import Store
from tests.folders import model_folder
from tests.service.jobs import BOB, store_of
from tests.service.works import asked, worker

pytestmark = [
    pytest.mark.slow,  # a cluster takes half a minute to start on two cores
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="the package ray is not installed"
    ),
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    model_folder(tmp_path / "model")
    return tmp_path


@contextlib.contextmanager
def on_ray(root: Path) -> Generator[int]:
    process = worker(root, "--ray", "--until-idle")
    try:
        yield process.pid
        assert process.wait(timeout=300) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def wait_for(store: Store, job: str, status: str) -> None:
    until = time.monotonic() + 300
    while store.job(job).status != status:
        assert time.monotonic() < until, store.job(job)
        time.sleep(0.1)


def test_a_job_on_the_cluster_is_the_job_on_this_machine(root: Path) -> None:
    store = store_of(root)
    config = {"train": {"max_steps": 6, "save_steps": 2}}
    here, there = asked(store, config=config), asked(store, config=config)
    process = worker(root, "--until-idle")
    store.want(there.id, BOB, "pause")
    assert process.wait(timeout=300) == 0
    store.want(there.id, BOB, "run")
    with on_ray(root):
        wait_for(store, there.id, "succeeded")
    name = "adapter_model.safetensors"
    ran = [(root / "jobs" / job.id / "run" / name).read_bytes() for job in (here, there)]
    assert ran[0] == ran[1]
    assert len(store.checkpoints(there.id)[0]) == 3


def test_cancelled_and_killed_on_the_cluster(root: Path) -> None:
    store = store_of(root)
    config = {"train": {"max_steps": 100_000, "save_steps": 10}}
    job = asked(store, config=config)
    folder = root / "jobs" / job.id
    with on_ray(root) as pid:
        while not store.checkpoints(job.id)[0]:
            time.sleep(0.1)
        (child,) = processes_of(folder)
        os.kill(child, signal.SIGKILL)  # it goes on from its checkpoint
        while child in processes_of(folder) or not processes_of(folder):
            time.sleep(0.1)
        store.want(job.id, BOB, "cancel")
        wait_for(store, job.id, "cancelled")
        assert processes_of(folder) == []
        assert pid


def test_the_process_ends_when_the_worker_is_killed(root: Path) -> None:
    store = store_of(root)
    job = asked(store, config={"train": {"max_steps": 100_000}})
    folder = root / "jobs" / job.id
    process = worker(root, "--ray")
    try:
        while not (folder / "run" / "events.jsonl").exists():
            time.sleep(0.1)
        assert processes_of(folder)
        process.kill()
        until = time.monotonic() + 60
        while processes_of(folder):
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
