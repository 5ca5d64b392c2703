"""What nothing needs goes; what is in use, and what an owner may still ask for, stays."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hone.runs.lock import RunLock
from hone.service.operator import Operator
from hone.service.order import RUN, TRAINING_ROWS
from hone.service.records import Job
from hone.service.retention import let_go
from hone.service.server import Service
from hone.service.shift import Shift, Slots
from hone.service.store import Store
from hone.serving.server import Address
from tests.service.jobs import queued
from tests.service.served import Served, serving, work


@pytest.fixture
def served(tmp_path: Path):
    with serving(tmp_path) as one:
        yield one


def ready(served: Served) -> Job:
    """A queued job with a folder like a prepared one."""
    job = served.client().fine_tuning.jobs.create(model="tiny", training_file=served.uploaded())
    until = time.monotonic() + 20
    while served.store.job(job.id).status != "queued":
        assert time.monotonic() < until
        time.sleep(0.02)
    folder = folder_of(served, job.id)
    (folder / RUN).mkdir(parents=True)
    (folder / TRAINING_ROWS).write_text("rows")
    return served.store.job(job.id)


def folder_of(served: Served, job: str) -> Path:
    return served.store.root / "jobs" / job


def test_a_job_goes_when_the_last_of_its_models_is_deleted(served: Served) -> None:
    job = ready(served)
    folder, client = folder_of(served, job.id), served.client()
    let_go(served.service.desk)
    assert folder.is_dir(), "it waits"
    name = work(served.store).tuned_name
    let_go(served.service.desk)
    assert folder.is_dir(), "its models answer"
    client.models.delete(name)
    let_go(served.service.desk)
    assert folder.is_dir(), "its checkpoint answers"
    client.models.delete(f"{name}:ckpt-step-3")
    with RunLock(folder / RUN / "lock"):
        let_go(served.service.desk)
        assert folder.is_dir(), "a process holds it"
    let_go(served.service.desk)
    assert not folder.exists()
    assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
    assert ("job.removed", job.id) in [
        (one["action"], one["subject"]) for one in served.store.audit()
    ]


def test_rows_go_with_their_file_and_a_model_stays(served: Served) -> None:
    job = ready(served)
    folder = folder_of(served, job.id)
    work(served.store)
    served.client().files.delete(job.training_file)
    let_go(served.service.desk)
    assert folder.is_dir()
    assert not (folder / TRAINING_ROWS).exists()


def test_a_job_that_made_nothing_goes_with_its_file(served: Served) -> None:
    job = ready(served)
    served.client().fine_tuning.jobs.cancel(job.id)
    let_go(served.service.desk)
    assert (folder_of(served, job.id) / TRAINING_ROWS).exists()
    served.client().files.delete(job.training_file)
    other = served.store.root / "jobs" / "notes"
    other.mkdir()
    let_go(served.service.desk)
    assert not folder_of(served, job.id).exists()
    assert other.is_dir(), "what is no job's is not touched"


class Stuck(BaseHTTPRequestHandler):
    """Hears a webhook, and does not answer for long."""

    came: threading.Event
    over: threading.Event

    def do_POST(self) -> None:
        self.came.set()
        self.over.wait(30)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_slow_address_delays_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stuck.came, Stuck.over = threading.Event(), threading.Event()
    target = ThreadingHTTPServer(("127.0.0.1", 0), Stuck)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    looks: list[float] = []
    monkeypatch.setattr(Shift, "look", lambda _: looks.append(time.monotonic()))
    store = Store(tmp_path)
    store.create_key("bob")
    url = f"http://127.0.0.1:{target.server_port}/"
    operator = Operator({"tiny": "nowhere"}, webhooks=(url,))
    service = Service(tmp_path, operator, Address(port=0), Slots(1))
    service.start()
    try:
        queued(store)
        held = store.claim("scripted", 60)
        assert held is not None
        error = {"code": "x", "message": "x", "param": None}
        store.release(held.id, held.fence, "failed", error=error)
        assert Stuck.came.wait(10)
        before = len(looks)
        time.sleep(3.5)
        assert len(looks) - before >= 2
    finally:
        Stuck.over.set()
        service.stop()
        target.shutdown()
        target.server_close()
