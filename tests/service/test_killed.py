"""A service killed at random instants over a small queue; `tests/prove/test_service_killed.py` is the large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.killing import check, killed, left_alone, queue_of


@pytest.mark.fault(14)
@pytest.mark.timeout(1500)
def test_a_queue_that_is_killed_again_and_again_ends_as_one_left_alone(tmp_path: Path) -> None:
    want = left_alone(tmp_path / "alone", seeds=1)
    store, jobs = queue_of(tmp_path / "killed", 2, seeds=1)
    done = killed(tmp_path / "killed", store, jobs, kills=4)
    print(done)
    assert done.total() == 4
    check(tmp_path / "killed", store, jobs, want)
