"""What happens twice: requests that a client repeats, pages that are read while more comes, a server that was killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from hone.service.records import NewEvent
from hone.service.store import Store
from tests.service.jobs import BOB, queued, store_of
from tests.service.served import Served, rows, serving, work


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as one:
        yield one


@pytest.mark.parametrize(
    ("fault", "stall_s", "patience_s"),
    [
        ("500", 0, 60),
        ("drop", 0, 60),
        ("stall", 3, 1),
        pytest.param("stall", 30, 10, marks=pytest.mark.slow),
        pytest.param("stall", 30, 60, marks=pytest.mark.slow),
    ],
)
def test_a_create_that_is_asked_again_makes_one_job(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    stall_s: float,
    patience_s: float,
) -> None:
    """The answer to the first request is lost after the job was made."""
    import hone.service.server as module

    real, lost = module.make_app, threading.Event()

    def faulty(*arguments: Any) -> Any:
        app = real(*arguments)

        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            if (
                scope["method"] != "POST"
                or scope["path"] != "/v1/fine_tuning/jobs"
                or lost.is_set()
            ):
                await app(scope, receive, send)
                return
            lost.set()

            async def swallow(message: Any) -> None:
                del message

            await app(scope, receive, swallow)
            if fault == "500":
                await send({"type": "http.response.start", "status": 500, "headers": []})
                await send({"type": "http.response.body", "body": b"{}"})
            elif fault == "stall":
                await asyncio.sleep(stall_s)
                raise ConnectionError
            else:
                raise ConnectionError

        return wrapped

    monkeypatch.setattr(module, "make_app", faulty)
    with serving(tmp_path) as served:
        file = served.uploaded()
        client = served.client(max_retries=2, timeout=patience_s)
        job = client.fine_tuning.jobs.create(model="tiny", training_file=file)
        assert lost.is_set()
        assert [one.id for one in client.fine_tuning.jobs.list()] == [job.id]


def test_two_requests_that_are_meant_make_two_jobs(served: Served) -> None:
    client, file = served.client(), served.uploaded()
    asked = {"model": "tiny", "training_file": file}
    first, second = (client.fine_tuning.jobs.create(**asked) for _ in range(2))
    assert first.id != second.id
    named = [
        client.fine_tuning.jobs.create(**asked, extra_headers={"Idempotency-Key": "k"}).id
        for _ in range(3)
    ]
    assert len(set(named)) == 1
    with pytest.raises(openai.BadRequestError, match="another request"):
        client.fine_tuning.jobs.create(**asked, seed=3, extra_headers={"Idempotency-Key": "k"})


def test_a_call_on_a_trainable_model_is_made_once(served: Served) -> None:
    client = served.client()
    register = {"project": "p", "name": "agent", "base_model": "tiny"}
    for _ in range(2):
        told: Any = client.post("/x_hone/models", cast_to=object, body=register)
    assert (told["step"], told["inference_name"]) == (0, "p/agent@0")
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/x_hone/models", cast_to=object, body={**register, "base_model": "other"})
    assert caught.value.param == "base_model"
    for name in ("../x", ".hidden", "a/b"):
        with pytest.raises(openai.BadRequestError):
            client.post("/x_hone/models", cast_to=object, body={**register, "name": name})
    call = {
        "project": "p",
        "name": "agent",
        "expected_step": 0,
        "learning_rate": 1e-4,
        "call": "c" * 32,
    }
    jobs = {
        client.fine_tuning.jobs.create(
            model="p/agent", training_file=served.uploaded(), extra_body={"x_hone": {"trainable": call}}
        ).id
        for _ in range(3)
    }  # fmt: skip
    assert len(jobs) == 1
    end = time.monotonic() + 20
    while served.store.job(min(jobs)).status != "queued":
        assert time.monotonic() < end
        time.sleep(0.02)
    work(served.store)
    told = client.get("/x_hone/models/p/agent", cast_to=object)
    assert told["step"] == 1
    assert client.fine_tuning.jobs.retrieve(min(jobs)).fine_tuned_model is None


def test_pages_have_no_gap_while_more_comes(served: Served) -> None:
    """10,000 events are read page by page, while others are written."""
    job = queued(served.store)
    held = served.store.claim("w", 600)
    assert held is not None
    first = [NewEvent(f"old {n}", mark=f"old:{n}") for n in range(10_000)]
    served.store.add_events(job.id, held.fence, first)
    done = threading.Event()

    def write() -> None:
        n = 0
        while not done.is_set():
            served.store.add_events(job.id, held.fence, [NewEvent(f"new {n}")])
            n += 1
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        told = [e.message for e in served.client().fine_tuning.jobs.list_events(job.id, limit=500)]
        done.set()
        writing.result()
    assert [one for one in told if one.startswith("old")] == [
        f"old {n}" for n in range(9999, -1, -1)
    ]
    assert len(set(told)) == len(told)


@pytest.mark.fault(31)
def test_ten_thousand_jobs_are_listed(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    made = queued(store)
    with store.writing() as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
            "INSERT INTO jobs (id, owner, model, base, tuned_name, status, body, config, metadata, hyperparameters, "
            "seed, training_file, created) SELECT 'ftjob-' || i, 'bob', 'tiny', 'tiny', 'ft:' || i, 'queued', '{}', "
            "'{}', json_object('n', '' || i), '{}', 0, 'f', 0 FROM n"
        )
    seen: list[str] = []
    after, more = None, True
    while more:
        page, more = store.jobs(BOB, after=after, limit=1000)
        seen += [one.id for one in page]
        after = page[-1].id
    assert len(set(seen)) == len(seen) == 10_001
    began = time.perf_counter()
    claimed = store.claim("w", 60)
    found, _ = store.jobs(BOB, metadata={"n": "77"})
    assert time.perf_counter() - began < 2.0
    assert claimed is not None
    assert claimed.id == made.id
    assert [one.id for one in found] == ["ftjob-77"]


@pytest.mark.parametrize(
    "status",
    ["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"],
)
def test_a_server_that_is_killed_comes_back_the_same(tmp_path: Path, status: str) -> None:
    code = (
        "import sys; from pathlib import Path; from hone.service.operator import Operator\n"
        "from hone.service.server import Service; from hone.serving.server import Address\n"
        "one = Service(Path(sys.argv[1]), Operator({'tiny': 'x'}), Address(port=0))\n"
        "print(one.port, flush=True); one.run()"
    )

    def start() -> tuple[subprocess.Popen[str], openai.OpenAI]:
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        url = f"http://127.0.0.1:{int(child.stdout.readline())}/v1"
        return child, openai.OpenAI(base_url=url, api_key=key, max_retries=3)

    store = Store(tmp_path)
    key = store.create_key(BOB)[1]
    child, client = start()
    file = client.files.create(file=("r.jsonl", rows()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id).id
    if status != "validating_files":
        end = time.monotonic() + 30
        while store.job(job).status != "queued":
            assert time.monotonic() < end
            time.sleep(0.02)
    match status:
        case "running":
            assert store.claim("w", 600) is not None
        case "paused":
            client.fine_tuning.jobs.pause(job)
        case "cancelled":
            client.fine_tuning.jobs.cancel(job)
        case "succeeded" | "failed":
            work(store, status=status)
        case _:
            pass
    before = client.fine_tuning.jobs.list_events(job).data
    known = client.fine_tuning.jobs.retrieve(job)
    models = [one.id for one in client.models.list()]
    (tmp_path / "files" / ("file-" + "0" * 32 + ".part")).write_bytes(b"half")
    child.send_signal(signal.SIGKILL)
    child.wait()
    child, client = start()
    try:
        after = client.fine_tuning.jobs.list_events(job).data
        assert after[len(after) - len(before) :] == before
        told = client.fine_tuning.jobs.retrieve(job)
        if status == "validating_files":
            assert told.status in (status, "queued")
        else:
            assert (told.status, told) == (status, known)
        assert [one.id for one in client.models.list()] == models
        assert client.files.content(file.id).read() == rows()
        assert [p.name for p in (tmp_path / "files").iterdir()] == [file.id]
    finally:
        child.kill()
        child.wait()
