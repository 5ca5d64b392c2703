"""Server, workers and jobs killed at 50 random instants over a queue of 20 jobs: each ends once, in the bits of a queue left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.killing import check, killed, left_alone, queue_of


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_killed_fifty_times_over_twenty_jobs(tmp_path: Path) -> None:
    want = left_alone(tmp_path / "alone", seeds=5)
    store, jobs = queue_of(tmp_path / "killed", 20, seeds=5)
    done = killed(tmp_path / "killed", store, jobs, kills=50)
    print(done)
    assert done.total() == 50
    check(tmp_path / "killed", store, jobs, want)
