"""A folder of the cache is removed by nobody while a process holds it, and by anyone once it does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from hone.data.hold import Hold, alone, is_held, lock_of


def test_holds_are_shared_and_keep_others_from_being_alone(tmp_path):
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    assert not is_held(folder)
    first, second = Hold(folder), Hold(folder)
    for one in (first, second):
        assert is_held(folder)
        with alone(folder) as is_mine:
            assert not is_mine
        one.release()
        one.release()
    assert not is_held(folder)
    with alone(folder) as is_mine:
        assert is_mine
        assert is_held(folder)
    assert list((tmp_path / "data").iterdir()) == [folder]
    assert list((tmp_path / "holds").iterdir()) == []


def test_a_hold_ends_with_its_object_and_with_its_process(tmp_path):
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    hold = Hold(folder)
    del hold
    assert not is_held(folder)
    code = f"import pathlib, time; from hone.data.hold import Hold; h = Hold(pathlib.Path({str(folder)!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", code + "; print(h.is_held, flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"True\n"
    assert is_held(folder)
    process.kill()
    process.wait()
    process.stdout.close()
    assert not is_held(folder)


def test_taking_a_hold_marks_the_folder_as_used(tmp_path):
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    os.utime(folder, (1, 1))
    Hold(folder)
    assert time.time() - folder.stat().st_mtime < 60


def test_a_hold_taken_after_a_removal_is_a_hold_on_the_new_folder(tmp_path):
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    with alone(folder):
        pass
    with alone(folder):
        assert is_held(folder)
    hold = Hold(folder)
    assert hold.is_held
    with alone(folder) as is_mine:
        assert not is_mine


def test_a_cache_that_cannot_be_locked_is_used_without(tmp_path):
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    (tmp_path / "holds").mkdir()
    lock_of(folder).symlink_to(tmp_path / "elsewhere")  # a link is never followed
    assert not Hold(folder).is_held
    assert is_held(folder)  # not to be known: then it is not removed
    with alone(folder) as is_mine:
        assert not is_mine
    assert not (tmp_path / "elsewhere").exists()
