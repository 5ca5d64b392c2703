"""The log of events: what is said can be read, nothing torn stays, no listener stops a run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from hone.errors import DiskError, Interrupted
from hone.runs.events import Event, EventLog, read_events, steps


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_a_line_holds_event_time_and_fields(path: Path) -> None:
    with EventLog(path, clock=lambda: 12.5) as log:
        log.say("step", step=1, loss=0.1 + 0.2, name="\ud800 ö\u2028\n", where=Path("a/b"))
    (line,) = lines(path)
    assert line == {
        "event": "step",
        "time": 12.5,
        "step": 1,
        "loss": 0.1 + 0.2,
        "name": "\ud800 ö\u2028\n",
        "where": "a/b",
    }
    (event,) = read_events(path)
    assert (event.name, event.time, event["loss"]) == ("step", 12.5, 0.1 + 0.2)
    assert event.get("absent", 7) == 7


def test_numbers_that_are_none_become_null_with_a_note(path: Path) -> None:
    with EventLog(path) as log:
        log.say("step", loss=math.nan, nested={"a": [1.0, -math.inf]}, norm=np.float32("inf"))
    (line,) = lines(path)
    assert line["loss"] is None
    assert line["nested"] == {"a": [1.0, None]}
    assert line["not_finite"] == {"loss": "nan", "nested.a.1": "-inf", "norm": "inf"}
    assert b"NaN" not in path.read_bytes()
    assert b"Infinity" not in path.read_bytes()


def test_numbers_of_numpy_are_numbers(path: Path) -> None:
    with EventLog(path) as log:
        log.say("data", rows=np.int64(3), share=np.float32(0.5), all=(np.int32(1), True, None))
    (line,) = lines(path)
    assert (line["rows"], line["share"], line["all"]) == (3, 0.5, [1, True, None])


@pytest.mark.parametrize("name", ["event", "time"])
def test_the_log_sets_event_and_time_itself(path: Path, name: str) -> None:
    with EventLog(path) as log, pytest.raises(ValueError, match="set by the log"):
        log.say("step", **{name: 1})


@pytest.mark.parametrize(
    "torn", [b'{"event": "st', b"x" * 200_000, b"\0" * 10, b'{"event": "step", "time": 1}']
)
def test_a_torn_last_line_is_cut_off_at_opening(path: Path, torn: bytes) -> None:
    with EventLog(path) as log:
        log.say("step", step=1)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [event["step"] for event in read_events(path)] == [1]
    with EventLog(path) as log:
        assert path.read_bytes() == whole
        log.say("step", step=2)
    assert [line["step"] for line in lines(path)] == [1, 2]


def test_a_file_that_is_one_torn_line_is_emptied(path: Path) -> None:
    path.write_bytes(b'{"event"')
    with EventLog(path):
        assert path.read_bytes() == b""


def test_a_line_is_there_when_say_returns_and_a_growing_file_can_be_read(path: Path) -> None:
    log = EventLog(path)
    for number in range(3):
        log.say("step", step=number)
        assert len(list(read_events(path))) == number + 1
    log.close()
    assert list(read_events(path.with_name("absent.jsonl"))) == []


def test_a_damaged_line_is_told_and_the_rest_is_read(path: Path) -> None:
    with EventLog(path, clock=lambda: 3.0) as log:
        log.say("step", step=1)
        log.say("step", step=2)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"\0\0\xff\n[]\n" + second)
    events = list(read_events(path))
    assert [event.name for event in events] == ["step", "notice", "notice", "step"]
    assert events[1]["code"] == "unreadable-event"
    assert "line 2" in events[1]["message"]


def test_a_step_done_again_counts_once_and_last(path: Path) -> None:
    with EventLog(path) as log:
        for step, loss in [(1, 3.0), (2, 2.0), (3, 9.0), (2, 2.5)]:
            log.say("step", step=step, loss=loss)
        log.say("saved", step=3)
    assert {step: event["loss"] for step, event in steps(path).items()} == {1: 3.0, 2: 2.5, 3: 9.0}


def test_listeners_get_every_event(path: Path) -> None:
    heard: list[Event] = []
    with EventLog(path) as log:
        log.listen(heard.append)
        log.say("started")
        log.say("step", step=1)
    assert heard == list(read_events(path))


def test_a_listener_that_raises_is_dropped_with_one_notice(path: Path) -> None:
    heard: list[str] = []

    def broken(event: Event) -> None:
        raise OSError("the terminal is gone")

    with EventLog(path) as log:
        log.listen(broken)
        log.listen(lambda event: heard.append(event.name))
        log.say("step", step=1)
        log.say("step", step=2)
    assert [line["event"] for line in lines(path)] == ["step", "notice", "step"]
    assert "terminal is gone" in str(lines(path)[1]["message"])
    assert sorted(heard) == ["notice", "step", "step"]


@pytest.mark.parametrize("error", [Interrupted("stop"), KeyboardInterrupt()])
def test_a_request_to_stop_passes_through_a_listener(path: Path, error: BaseException) -> None:
    def interrupted(event: Event) -> None:
        raise error

    with EventLog(path) as log:
        log.listen(interrupted)
        with pytest.raises(type(error)):
            log.say("step", step=1)


def test_lines_of_several_threads_do_not_mix(path: Path) -> None:
    with EventLog(path) as log:
        threads = [
            threading.Thread(target=lambda: [log.say("x", text="y" * 5000) for _ in range(20)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(lines(path)) == 80


def test_a_link_in_place_of_the_file_is_refused(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("keep me, not ended by a line feed")
    path.symlink_to(elsewhere)
    with pytest.raises(DiskError):
        EventLog(path)
    assert elsewhere.read_text() == "keep me, not ended by a line feed"


FULL = """
import resource, sys
from pathlib import Path
from hone.errors import DiskError
from hone.runs.events import EventLog
log = EventLog(Path(sys.argv[1]))
log.say("step", step=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    log.say("step", step=2, text="x" * 500)
except DiskError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_leaves_no_half_line(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "cannot write the run's events" in done.stdout
    assert [line["step"] for line in lines(path)] == [1]
