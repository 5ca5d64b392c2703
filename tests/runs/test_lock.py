"""The lock: one live run, named to the second one; a dead one's lock is free at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hone.errors import DiskError, LockedError
from hone.runs.lock import RunLock, holder

HOLD = """
import sys, time
from pathlib import Path
from hone.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def hold(path: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


@pytest.mark.fault(14)
def test_a_second_run_is_told_who_holds_it_and_a_dead_owners_lock_is_free(path: Path) -> None:
    child = hold(path)
    try:
        with pytest.raises(LockedError) as caught:
            RunLock(path).acquire()
        assert caught.value.exit_code == 4
        assert f"process {child.pid} on {os.uname().nodename}" in caught.value.what
        assert f"kill -INT {child.pid}" in str(caught.value.remedy)
        owner = holder(path)
        assert owner is not None
        assert owner.pid == child.pid
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert holder(path) is None
    with RunLock(path):
        owner = holder(path)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert holder(path) is None


def test_the_same_process_cannot_take_it_twice(path: Path) -> None:
    with RunLock(path), pytest.raises(LockedError):
        RunLock(path).acquire()
    with RunLock(path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}'])
def test_an_owner_that_wrote_no_name_is_another_run(path: Path, content: bytes) -> None:
    with RunLock(path):
        path.write_bytes(content)
        with pytest.raises(LockedError, match="another run"):
            RunLock(path).acquire()


def test_a_link_is_not_followed(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("keep me")
    path.symlink_to(elsewhere)
    with pytest.raises(DiskError):
        RunLock(path).acquire()
    assert elsewhere.read_text() == "keep me"


def test_no_lock_file_has_no_holder(path: Path) -> None:
    assert holder(path) is None
