"""Files are checked beside each other, the small ones first; a check that dies or takes too long is an error of its file."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.service import checks as module
from hone.service.checks import Checks
from hone.service.names import FILE, new_id
from hone.service.store import Store
from tests.service.jobs import BOB, store_of
from tests.service.served import rows, serving


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = store_of(tmp_path)
    (tmp_path / "files").mkdir()
    return made


@pytest.fixture
def checks(store: Store) -> Iterator[Checks]:
    made = Checks(store)
    yield made
    made.end()


def unchecked(store: Store, data: bytes) -> str:
    file = new_id(FILE)
    (store.root / "files" / file).write_bytes(data)
    store.add_file(
        BOB, id=file, purpose="fine-tune", filename="rows.jsonl", bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(), status="uploaded",
    )  # fmt: skip
    return file


def look_until_done(checks: Checks, store: Store, file: str) -> str:
    end = time.monotonic() + 60
    while (status := store.file(file, BOB).status) == "uploaded":
        assert time.monotonic() < end
        checks.look()
        time.sleep(0.02)
    return status


def test_the_small_ones_first_and_two_at_once(store: Store, checks: Checks) -> None:
    large, small, middle = (unchecked(store, rows(count)) for count in (900, 3, 300))
    checks.look()
    assert set(checks._running) == {small, middle}
    for file, count in ((small, 3), (middle, 300), (large, 900)):
        assert look_until_done(checks, store, file) == "processed"
        assert store.file(file, BOB).rows == count


def test_what_is_wrong_lies_whole_beside_the_file(store: Store, checks: Checks) -> None:
    file = unchecked(store, rows(2) + b'{"messages": 7}\n' * 50)
    assert look_until_done(checks, store, file) == "error"
    lines = (store.root / "files" / f"{file}.errors").read_text().splitlines()
    assert len(lines) >= 50
    assert {path.name for path in (store.root / "files").iterdir()} == {file, f"{file}.errors"}


def test_a_check_that_dies(store: Store, checks: Checks, caplog: pytest.LogCaptureFixture) -> None:
    file = unchecked(store, rows())
    checks.look()
    checks._running[file].process.kill()
    assert look_until_done(checks, store, file) == "error"
    assert "upload it again" in (store.file(file, BOB).details or "")
    assert f"checking {file} failed" in caplog.text


def test_a_check_that_takes_too_long(
    store: Store, checks: Checks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_CHECK_S", 0.0)
    file = unchecked(store, rows())
    assert look_until_done(checks, store, file) == "error"
    assert "took longer than" in caplog.text
    assert checks._running == {}


def test_a_check_that_a_servers_end_cuts_is_made_by_the_next(tmp_path: Path) -> None:
    with serving(tmp_path, checking_bytes=0) as served:
        file = served.uploaded()
    with serving(tmp_path) as served:
        assert served.client().files.wait_for_processing(file).status == "processed"
