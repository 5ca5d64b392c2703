"""What is said of a process that died without a word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hone.service.death import Kills, cause_of

NONE = Kills(3, 1)


@pytest.mark.parametrize("after", [Kills(4, 1), Kills(3, 2)])
def test_a_kill_that_the_system_counted_is_told_as_want_of_memory(after: Kills) -> None:
    kind, message = cause_of(-9, NONE, after)
    assert kind == "out_of_memory"
    assert "ran out of memory" in message


@pytest.mark.parametrize(
    ("code", "after", "says"),
    [(-9, NONE, "SIGKILL"), (-11, Kills(9, 9), "SIGSEGV"), (3, Kills(9, 9), "exit code 3")],
)
def test_other_deaths_are_told_as_what_they_are(code: int, after: Kills, says: str) -> None:
    kind, message = cause_of(code, NONE, after)
    assert kind == "process_died"
    assert says in message


def test_the_systems_own_counts_are_read(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "vmstat").write_text("pgfault 12\noom_kill 7\n")
    (proc / "self" / "cgroup").write_text("1:cpu:/x\n0::/box/one\n")
    (groups / "box" / "one").mkdir(parents=True)
    (groups / "box" / "one" / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert Kills.now(proc, groups) == Kills(7, 2)
    assert Kills.now(tmp_path / "no", tmp_path / "no") == Kills(0, 0)
    if os.access("/proc/vmstat", os.R_OK):
        assert Kills.now().machine >= 0
