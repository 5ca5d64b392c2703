"""The store under what befalls it: held by another, damaged, without room, without its log, under a clock that jumps."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from hone.errors import EnvironmentFault
from hone.service.operator import Operator
from hone.service.records import NewEvent
from hone.service.server import Service
from hone.service.store import Store
from hone.service.tables import database
from hone.serving.server import Address
from tests.service.jobs import BOB, queued, store_of
from tests.service.served import Served, rows, serving

pytestmark = pytest.mark.fault(15)

HOLD = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def create(served: Served, file: str) -> httpx2.Response:
    return httpx2.post(
        f"{served.service.base_url}/fine_tuning/jobs",
        headers={"authorization": f"Bearer {served.key}"},
        json={"model": "tiny", "training_file": file},
        timeout=30,
    )


def test_a_store_that_another_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_MS", 300)
    with serving(tmp_path) as served:
        file = served.uploaded()
        words = [sys.executable, "-c", HOLD, str(tmp_path / "service.db")]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            answer = create(served, file)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["error"]["code"] == "busy"
            assert not served.store.count_jobs()
            other.stdin.close()
            other.wait(10)
        assert create(served, file).status_code == 200
        assert served.client().fine_tuning.jobs.list().data[0].training_file == file


@pytest.mark.parametrize("where", [0, 0.5])
def test_a_damaged_store_is_not_opened_and_stays_as_it_is(tmp_path: Path, where: float) -> None:
    store = store_of(tmp_path)
    for _ in range(40):
        queued(store)
    with closing(sqlite3.connect(tmp_path / "service.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    path = tmp_path / "service.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(int(size * where))
        file.write(b"\xa5" * max(4096, size // 3))
    damaged = path.read_bytes()
    with pytest.raises(EnvironmentFault, match="damaged") as caught:
        Service(tmp_path, Operator({"tiny": "x"}), Address(port=0))
    assert "put back a copy" in str(caught.value.remedy)
    assert path.read_bytes() == damaged


@contextmanager
def room(bytes_: int) -> Generator[None]:
    """Files of this process may grow no larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_without_room(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        first = served.uploaded()
        known = sorted(path.name for path in (tmp_path / "files").iterdir())
        data = rows(20_000)
        with room(200_000):
            answer = httpx2.post(
                f"{served.service.base_url}/files",
                headers={"authorization": f"Bearer {served.key}"},
                files={"file": ("a.jsonl", data)},
                data={"purpose": "fine-tune"},
                timeout=30,
            )
        assert answer.status_code == 507, answer.text
        assert answer.json()["error"]["code"] == "storage_unavailable"
        assert str(tmp_path) not in answer.text
        assert sorted(path.name for path in (tmp_path / "files").iterdir()) == known
        with room(1000):
            answer = create(served, first)
        assert answer.status_code == 507, answer.text
        assert not served.store.count_jobs()
        assert create(served, first).status_code == 200
        served.store.check()
    assert Store(tmp_path).file(first, BOB).bytes == len(rows())


SERVE = """
import os, sys
from pathlib import Path
from tests.service.jobs import queued
from tests.service.served import serving
with serving(Path(sys.argv[1])) as served:
    queued(served.store)
os._exit(0)
"""


def test_a_log_that_was_removed_while_nobody_ran(tmp_path: Path) -> None:
    """A service that ended in order left nothing in it."""
    here = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", SERVE, str(tmp_path)], cwd=here, check=True, timeout=60)
    for name in ("service.db-wal", "service.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with serving(tmp_path) as served:
        (job,) = served.store.jobs(BOB)[0]
        assert job.status == "queued"
        assert create(served, served.uploaded()).status_code == 200


def test_a_clock_that_is_set_back(tmp_path: Path) -> None:
    store = store_of(tmp_path, max_running=9)
    at = [2_000_000_000]
    store.now = lambda: at[0]
    first = queued(store)
    at[0] -= 1_000_000
    second = queued(store)
    assert (first.seq < second.seq, first.created > second.created) == (True, True)
    listed, _ = store.jobs(BOB)
    assert [one.id for one in listed] == [second.id, first.id]
    held = store.claim("w", 60)
    assert held is not None
    assert held.id == first.id, "the one that came first"
    for n in range(3):
        at[0] -= 100
        store.add_events(held.id, held.fence, [NewEvent(f"n{n}", mark=f"n{n}")], offset=n)
    found = [one.message for one in store.events(held.id)[0]]
    assert found[:3] == ["n2", "n1", "n0"]
    page, _ = store.events(held.id, limit=1)
    assert store.events(held.id, after=page[0].id, limit=1)[0][0].message == "n1"
    assert store.claim("w2", 60) is not None, "and nobody takes the first one: its lease holds"
    assert store.claim("w3", 60) is None
    assert store.renew(held.id, held.fence, 60)


def test_a_store_that_is_damaged_while_it_runs(tmp_path: Path) -> None:
    """Every answer says so without a path, health too, and the operator's log says what to do."""
    with serving(tmp_path) as served:
        for _ in range(60):
            queued(served.store)
        with closing(sqlite3.connect(tmp_path / "service.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path = tmp_path / "service.db"
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (path.stat().st_size - 4096))
        headers = {"authorization": f"Bearer {served.key}"}
        for place in ("/v1/fine_tuning/jobs", "/v1/files", "/v1/models"):
            answer = httpx2.get(served.service.url + place, headers=headers)
            assert answer.status_code == 500
            assert "the store is damaged" in answer.json()["error"]["message"]
            assert str(tmp_path) not in answer.text
        assert httpx2.get(served.service.url + "/health").status_code == 503
        assert create(served, "file-" + "0" * 32).status_code == 500
