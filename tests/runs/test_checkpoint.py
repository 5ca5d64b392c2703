"""Checkpoints: whole or absent, whatever fails and wherever; damaged ones are seen and skipped."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hone.errors import DiskError
from hone.runs.checkpoint import Checkpoint, CheckpointStore
from hone.runs.disk import Disk
from tests.engine.stand_in import Said
from tests.runs.faults import FaultyDisk, Killed, PowerLoss

FILES = ("progress.json", "weights.bin")


def content(step: int, variant: int = 0) -> dict[str, bytes]:
    return {
        "weights.bin": bytes((step * 7 + variant + i) % 251 for i in range(5000)),
        "progress.json": json.dumps({"step": step, "variant": variant}).encode(),
    }


def writer(step: int, variant: int = 0) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, data in content(step, variant).items():
            (folder / name).write_bytes(data)

    return write


def filled(folder: Path, *steps: int, keep: int = 9) -> CheckpointStore:
    store = CheckpointStore(folder, keep=keep)
    for step in steps:
        store.save(step, writer(step))
    return store


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def holds(checkpoint: Checkpoint | None, step: int, variant: int = 0) -> bool:
    return checkpoint is not None and {
        name: (checkpoint.path / name).read_bytes() for name in FILES
    } == content(step, variant)


def test_saved_and_found_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=3)
    said = Said()
    assert store.latest(said) is None
    saved = store.save(50, writer(50), score=1.25)
    assert saved.path.name == "step-00000050"
    assert CheckpointStore(tmp_path / "checkpoints", keep=3).latest(said) == saved
    assert holds(saved, 50)
    assert not said.events
    manifest = json.loads((saved.path / "manifest.json").read_text())
    assert (manifest["format"], manifest["step"], manifest["score"]) == (1, 50, 1.25)
    assert {file["name"]: file["size"] for file in manifest["files"]} == {
        name: len(data) for name, data in content(50).items()
    }


def test_the_newest_stay_and_the_best_always(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3)
    for step, score in [(1, 5.0), (2, 1.0), (3, None), (4, 4.0), (5, 3.0), (6, 2.0)]:
        store.save(step, writer(step), score=score)
    assert names(tmp_path) == ["step-00000002", "step-00000005", "step-00000006"]
    assert store.best() == Checkpoint(tmp_path / "step-00000002", 2, 1.0)
    store.save(7, writer(7), score=0.5)
    assert names(tmp_path) == ["step-00000005", "step-00000006", "step-00000007"]


def test_keeping_one_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    for step, score in [(1, 5.0), (2, 1.0), (3, 2.0), (4, 3.0)]:
        store.save(step, writer(step), score=score)
    assert names(tmp_path) == ["step-00000002", "step-00000004"]


def test_the_same_step_saved_again_replaces(tmp_path: Path) -> None:
    store = filled(tmp_path, 1, 2)
    store.save(2, writer(2, variant=9), score=0.5)
    latest = store.latest(Said())
    assert holds(latest, 2, variant=9)
    assert latest is not None
    assert latest.score == 0.5
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_leftovers_are_removed_at_opening(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    for leftover in (".writing-step-00000002", ".removing-step-00000000"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "weights.bin").write_bytes(b"half")
    filled(tmp_path)
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("successor", ["absent", "whole", "damaged"])
def test_a_checkpoint_that_stepped_aside_comes_back_unless_its_successor_is_whole(
    tmp_path: Path, successor: str
) -> None:
    filled(tmp_path, 1)
    (tmp_path / "step-00000001").rename(tmp_path / ".replaced-step-00000001")
    if successor != "absent":
        other = tmp_path / "other"
        filled(other).save(1, writer(1, variant=4))
        (other / "step-00000001").rename(tmp_path / "step-00000001")
        shutil.rmtree(other)
    if successor == "damaged":
        (tmp_path / "step-00000001" / "weights.bin").write_bytes(b"")
    assert holds(filled(tmp_path).latest(Said()), 1, variant=4 if successor == "whole" else 0)
    assert names(tmp_path) == ["step-00000001"]


# Damage


def flip(place: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 1
        path.write_bytes(bytes(data))

    return damage


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap_with_the_previous(path: Path) -> None:
    shutil.copy(path.parent.parent / "step-00000001" / path.name, path)


def link_to_a_copy(path: Path) -> None:
    aside = path.parent.parent / f"copy-of-{path.name}"
    path.rename(aside)
    path.symlink_to(aside)


def turn_into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[Callable[[Path], None]] = [
    *(flip(place / 10) for place in range(11)),
    truncate,
    lengthen,
    empty,
    Path.unlink,
    swap_with_the_previous,
    link_to_a_copy,
    turn_into_a_folder,
]


@pytest.mark.fault(4)
@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", range(len(DAMAGES)))
def test_a_damaged_file_makes_the_previous_checkpoint_the_latest(
    tmp_path: Path, file: str, damage: int
) -> None:
    filled(tmp_path, 1, 2)
    DAMAGES[damage](tmp_path / "step-00000002" / file)
    said = Said()
    store = filled(tmp_path)
    assert holds(store.latest(said), 1)
    (notice,) = said.of("notice")
    assert notice["code"] == "checkpoint-skipped"
    assert "step 2" in str(notice["message"])
    store.save(2, writer(2, variant=1))  # redone: it takes the place of the damaged one
    assert holds(store.latest(said), 2, variant=1)


@pytest.mark.fault(4)
def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    filled(tmp_path, 1, 2)
    path = tmp_path / "step-00000002" / "manifest.json"
    whole = path.read_bytes()
    store = filled(tmp_path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert holds(store.latest(Said()), 1), place
    path.write_bytes(whole)
    assert holds(store.latest(Said()), 2)


@pytest.mark.fault(5)
def test_what_a_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, 1, 2)
    (tmp_path / "step-00000002" / "extra.bin").write_bytes(b"x")
    assert holds(filled(tmp_path).latest(Said()), 1)


@pytest.mark.fault(5)
def test_a_link_in_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "elsewhere", 2)
    filled(tmp_path / "here", 1)
    (tmp_path / "here" / "step-00000002").symlink_to(tmp_path / "elsewhere" / "step-00000002")
    said = Said()
    assert holds(filled(tmp_path / "here").latest(said), 1)
    assert said.of("notice")


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "elsewhere", 2)
    (tmp_path / "here").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DiskError, match="symbolic link"):
        filled(tmp_path / "here")


@pytest.mark.fault(4)
def test_a_renamed_checkpoint_is_refused(tmp_path: Path) -> None:
    filled(tmp_path, 1, 2)
    (tmp_path / "step-00000002").rename(tmp_path / "step-00000003")
    assert holds(filled(tmp_path).latest(Said()), 1)


@pytest.mark.fault(32)
def test_another_versions_format_is_skipped_and_told(tmp_path: Path) -> None:
    from hone.runs import checkpoint

    filled(tmp_path, 1, 2)
    path = tmp_path / "step-00000002" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    path.write_bytes(checkpoint._encode({**manifest, "format": 2}))  # pyright: ignore[reportPrivateUsage]
    said = Said()
    assert holds(filled(tmp_path).latest(said), 1)
    assert "format 2" in str(said.of("notice")[0]["message"])


@pytest.mark.fault(4)
def test_all_damaged_is_none(tmp_path: Path) -> None:
    filled(tmp_path, 1, 2)
    for path in tmp_path.iterdir():
        empty(path / "weights.bin")
    said = Said()
    assert filled(tmp_path).latest(said) is None
    assert len(said.of("notice")) == 2


def test_an_abandoned_future_is_gone_once_its_successor_stands(tmp_path: Path) -> None:
    """Steps 8 and 9 were damaged, the run went on from 5: at 6 they must not be found any more."""
    filled(tmp_path, 5, 8, 9)
    for step in (8, 9):
        empty(tmp_path / f"step-0000000{step}" / "weights.bin")
    store = filled(tmp_path, keep=3)
    assert holds(store.latest(Said()), 5)
    store.save(6, writer(6))
    assert names(tmp_path) == ["step-00000005", "step-00000006"]


def test_a_whole_future_is_gone_too_when_a_run_begins_again(tmp_path: Path) -> None:
    filled(tmp_path, 5, 8, 9)
    filled(tmp_path).save(1, writer(1))
    assert names(tmp_path) == ["step-00000001"]


# Faults


SCENES: dict[str, Callable[[CheckpointStore], object]] = {
    "a new step": lambda store: store.save(3, writer(3), score=1.0),
    "the same step again": lambda store: store.save(2, writer(2, variant=5), score=1.0),
}


def prepared(folder: Path) -> None:
    CheckpointStore(folder, keep=2).save(1, writer(1), score=2.0)
    CheckpointStore(folder, keep=2).save(2, writer(2))


def check_after(folder: Path, *, finished: bool, scene: str) -> None:
    """The old state or the new one, complete, and no litter after the next opening."""
    store = CheckpointStore(folder, keep=2)
    said = Said()
    latest = store.latest(said)
    new = holds(latest, 3) if scene == "a new step" else holds(latest, 2, variant=5)
    assert new or (not finished and holds(latest, 2))
    assert not said.of("notice")
    assert all(name.startswith("step-") for name in names(folder))
    assert all(names(path) == ["manifest.json", *FILES] for path in folder.iterdir())
    assert store.save(4, writer(4)).step == 4
    assert len(names(folder)) == 2


@pytest.mark.fault(3)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_every_operation_failing_in_turn(tmp_path: Path, scene: str, error: int) -> None:
    for at in range(1, 100):
        folder = tmp_path / str(at)
        prepared(folder)
        disk = FaultyDisk(at, error=error)
        told = ""
        try:
            SCENES[scene](CheckpointStore(folder, keep=2, disk=disk))
        except DiskError as failure:
            told = f"exit {failure.exit_code}: {failure.what}"
        assert disk.struck == bool(told)
        assert not told or ("exit 4" in told and "bytes free" in told)
        assert not list(folder.glob(".writing-*"))
        check_after(folder, finished=not told, scene=scene)
        if not told:
            assert at > 10
            return
    pytest.fail("never finished")


@pytest.mark.fault(1)
@pytest.mark.parametrize("scene", SCENES)
def test_the_process_killed_at_every_operation_in_turn(tmp_path: Path, scene: str) -> None:
    for at in range(1, 100):
        folder = tmp_path / str(at)
        prepared(folder)
        try:
            SCENES[scene](CheckpointStore(folder, keep=2, disk=FaultyDisk(at, dies=True)))
        except Killed:
            check_after(folder, finished=False, scene=scene)
        else:
            check_after(folder, finished=True, scene=scene)
            assert at > 10
            return
    pytest.fail("never finished")


@pytest.mark.fault(2)
@pytest.mark.parametrize("names_too", [False, True])
@pytest.mark.parametrize("scene", SCENES)
def test_the_power_lost_at_every_operation_in_turn(
    tmp_path: Path, scene: str, names_too: bool
) -> None:
    for at in range(1, 100):
        folder = tmp_path / str(at)
        prepared(folder)
        disk = PowerLoss(at)
        disk.pushed = {path.stat().st_ino for path in folder.rglob("*")}
        finished = True
        try:
            SCENES[scene](CheckpointStore(folder, keep=2, disk=disk))
        except Killed:
            finished = False
        disk.lose(folder, names_too=names_too)
        check_after(folder, finished=finished, scene=scene)
        if finished:
            return
    pytest.fail("never finished")


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)

    def interrupted(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save(2, interrupted)
    assert names(tmp_path) == ["step-00000001"]


class SmallDisk(Disk):
    def free_bytes(self, path: Path) -> int:
        return 1000


@pytest.mark.fault(3)
def test_no_space_is_seen_before_the_save(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=3, disk=SmallDisk())
    store.check_space(1000)
    store.check_space(250, saves=9)  # three kept, and one more while it is verified
    for refused in (
        lambda: store.check_space(1001),
        lambda: store.check_space(251, saves=9),
        lambda: store.save(1, writer(1), needed_bytes=2000),
    ):
        with pytest.raises(DiskError, match="bytes needed, 1,000 bytes free") as caught:
            refused()
        assert "free some space" in str(caught.value.remedy)
    assert names(tmp_path) == []


def test_what_reads_back_differently_is_not_kept(tmp_path: Path) -> None:
    class Forgetful(Disk):
        def rename(self, old: Path, new: Path) -> None:
            super().rename(old, new)
            if new.name == "step-00000002":
                empty(new / "weights.bin")

    filled(tmp_path, 1)
    store = CheckpointStore(tmp_path, keep=1, disk=Forgetful())
    with pytest.raises(DiskError, match="read back"):
        store.save(2, writer(2))
    assert holds(store.latest(Said()), 1)
    assert names(tmp_path) == ["step-00000001"]
