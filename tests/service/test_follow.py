"""A run's events are told once each, whenever the reading is broken off and however often a step is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hone.service.follow import Follower


def line(event: str, **fields: Any) -> bytes:
    return json.dumps({"event": event, "time": 100.5, **fields}).encode() + b"\n"


def step(number: int, loss: float | None = 1.0) -> bytes:
    return line("step", step=number, steps=6, loss=loss, tokens=7, seconds=2.0, learning_rate=1e-4)


# A run that died after step 4 and went on from the checkpoint of step 2.
LINES = [
    line("phase", name="loading"),
    step(1), step(2), line("saved", step=2, path="/srv/jobs/j/run/checkpoints/step-00000002"), step(3), step(4),
    line("resumed", step=2), line("phase", name="loading"),
    step(3), step(4), line("evaluated", step=4, loss=0.5), line("saved", step=4, path="/srv/jobs/j/run/checkpoints/step-00000004"),
    step(5), step(6, None),
]  # fmt: skip

MARKS = ["phase:loading", *(f"step:{n}" for n in (1, 2, 3, 4)), "resumed:100.500000", "valid:4", "step:5", "step:6"]  # fmt: skip


def drained(follower: Follower, most_bytes: int = 50) -> tuple[list[str], list[int]]:
    """The marks and the checkpoints' steps of all that can be read."""
    marks: list[str] = []
    steps: list[int] = []
    before = -1
    while follower.offset != before:
        before = follower.offset
        batch = follower.read(most_bytes=most_bytes)
        marks += [str(event.mark) for event in batch.events]
        steps += [one.step for one in batch.checkpoints]
    return marks, steps


def test_each_thing_once_and_numbers_of_the_whole(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(LINES))
    follower = Follower(file)
    marks, checkpoints = drained(follower)
    assert marks == MARKS
    assert checkpoints == [2, 4]
    progress = follower.progress
    assert (progress.step, progress.steps, progress.trained_tokens, progress.seconds_left) == (
        6,
        6,
        42,
        0.0,
    )
    assert follower.csv() == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
        "1,1.0,,,\n2,1.0,,,\n3,1.0,,,\n4,1.0,,0.5,\n5,1.0,,,\n6,,,,\n"
    )


def test_metrics_of_a_step_and_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(LINES[8:12]))
    batch = Follower(file).read()
    first = batch.events[0]
    assert first.message == "Step 3/6: training loss=1.0000"
    assert (first.type, first.created) == ("metrics", 100)
    assert first.data == {
        "step": 3, "total_steps": 6, "train_loss": 1.0, "learning_rate": 1e-4, "tokens": 7, "seconds": 2.0,
    }  # fmt: skip
    assert batch.checkpoints[0].metrics == {
        "step": 4, "train_loss": 1.0, "valid_loss": 0.5, "full_valid_loss": 0.5,
    }  # fmt: skip


@given(at=st.integers(0, sum(map(len, LINES))), torn=st.integers(0, 30), most=st.integers(1, 400))
def test_broken_off_anywhere(tmp_path_factory: Any, at: int, torn: int, most: int) -> None:
    """Read up to an offset, begin anew there, with half a line at the end: together all of it, once."""
    file = tmp_path_factory.mktemp("f") / "events.jsonl"
    whole = b"".join(LINES)
    file.write_bytes(whole[:at])
    first = Follower(file)
    marks = drained(first, most)[0]
    file.write_bytes(whole + b'{"event": "step", "st'[:torn])
    second = Follower(file, offset=first.offset)
    assert second.offset == first.offset
    marks += drained(second, most)[0]
    assert marks == MARKS
    assert second.csv().count("\n") == 7


def test_a_file_that_lost_its_end_is_read_on(tmp_path: Path) -> None:
    """The power failed: what was read is gone from the file, and the run goes on before it."""
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(LINES[:6]))
    follower = Follower(file)
    drained(follower)
    file.write_bytes(b"".join(LINES[:4]))
    assert drained(follower)[0] == []
    file.write_bytes(b"".join(LINES[:4]) + step(3) + step(4) + step(5))
    assert drained(follower)[0] == ["step:5"]


def test_a_checkpoint_that_nobody_told_of_is_known_by_what_goes_on_from_it(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(step(1) + step(2) + line("resumed", step=2) + step(3))
    assert drained(Follower(file)) == (
        ["step:1", "step:2", "resumed:100.500000", "step:3"],
        [2],
    )


def test_damaged_lines_and_folders_are_not_told(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    secret = "/srv/hone/jobs/j/train.jsonl line 3: bad"
    file.write_bytes(
        b"\xff\xfe\n[1]\n{}\n" + line("notice", code="x", message=secret) + line("odd")
    )
    batch = Follower(file, shown={"/srv/hone/jobs/j/": "", "/srv/hone": "?"}).read()
    assert [event.message for event in batch.events] == ["train.jsonl line 3: bad"]
