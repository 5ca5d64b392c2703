"""The run folder: its files written whole or not at all, nothing foreign overwritten or followed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hone.errors import DiskError, EnvironmentFault
from hone.runs.folder import RunFolder, find_runs
from tests.runs.faults import FaultyDisk, Killed


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs" / "first")
    assert (folder.read_config(), folder.read_identity(), folder.read_ledger()) == (None,) * 3
    folder.write_config("train:\n  seed: 3\n")
    folder.write_identity({"budgets": [[1, 4096]], "data": "abc"})
    folder.write_ledger({"rows": 3, "dropped": {}})
    folder.update_identity(budgets=[[1, 4096], [7, 2048]])
    again = RunFolder.open(tmp_path / "runs" / "first")
    assert again.read_config() == "train:\n  seed: 3\n"
    assert again.read_identity() == {"budgets": [[1, 4096], [7, 2048]], "data": "abc"}
    assert again.read_ledger() == {"rows": 3, "dropped": {}}
    assert again.name == "first"
    assert sorted(p.name for p in folder.path.iterdir()) == ["ledger.json", "run.json", "run.yaml"]


def test_a_folder_without_a_run_is_refused_by_open(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no run"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "events.jsonl", "README.md"])
def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(EnvironmentFault, match=name) as caught:
        RunFolder.create(tmp_path)
    assert caught.value.exit_code == 4
    assert (tmp_path / name).read_text() == "precious"


def test_a_folder_with_unrelated_files_can_hold_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder.create(tmp_path).write_identity({})
    RunFolder.create(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_killed_before_its_first_record_can_be_started_again(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path)
    with folder.lock(), folder.events() as log:
        log.say("started")
    RunFolder.create(tmp_path)


def test_a_link_to_elsewhere_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config("a: 1\n")
    secret = tmp_path / "secret.json"
    secret.write_text('{"a": 1}')
    (folder.path / "run.json").symlink_to(secret)
    with pytest.raises(DiskError, match="regular file"):
        folder.read_identity()
    folder.write_identity({"b": 2})
    assert secret.read_text() == '{"a": 1}'
    assert folder.read_identity() == {"b": 2}


def test_a_damaged_record_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(EnvironmentFault, match="damaged") as caught:
        RunFolder.open(tmp_path).read_identity()
    assert "--fresh" in str(caught.value.remedy)


@pytest.mark.parametrize("dies", [False, True])
def test_a_record_is_old_or_new_wherever_writing_fails(tmp_path: Path, *, dies: bool) -> None:
    for at in range(1, 20):
        path = tmp_path / str(at)
        RunFolder.create(path).write_identity({"old": True})
        faulty = RunFolder(path, disk=FaultyDisk(at, error=errno.ENOSPC, dies=dies))
        try:
            faulty.write_identity({"new": True})
        except (DiskError, Killed):
            folder = RunFolder.open(path)
            assert folder.read_identity() in ({"old": True}, {"new": True})
            folder.write_identity({"third": True})
            assert [p.name for p in path.iterdir()] == ["run.json"]
        else:
            assert RunFolder.open(path).read_identity() == {"new": True}
            assert at > 4
            return
    pytest.fail("never finished")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError):
        RunFolder.create(tmp_path / "file")


def test_runs_are_found(tmp_path: Path) -> None:
    for name in ("b", "a"):
        RunFolder.create(tmp_path / name).write_identity({})
    (tmp_path / "c").mkdir()
    assert [folder.name for folder in find_runs(tmp_path)] == ["a", "b"]
    assert find_runs(tmp_path / "absent") == []
