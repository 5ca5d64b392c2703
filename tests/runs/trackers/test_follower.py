"""Events reach a tracker once and in order, through kills, resumes and half-written lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hone.runs.events import EventLog
from hone.runs.trackers.follower import Follower, Told
from hone.runs.trackers.tracker import Ending, Point, Sample


class Recorder:
    id, place, notices = "r1", "here", ()

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.samples: list[tuple[int, list[str]]] = []

    def log(self, points: Sequence[Point]) -> None:
        self.points += [(point.step, dict(point.metrics)) for point in points]

    def log_samples(self, step: int, time: float, samples: Sequence[Sample]) -> None:
        self.samples.append((step, [one.reply for one in samples]))

    def close(self, ending: Ending) -> None: ...


def follow(events: Path, tracker: Recorder) -> Follower:
    """One process's life: all that is there is passed on."""
    state = events.parent / "state.json"
    follower = Follower(events, state, tracker, Told.read(state))
    follower.pass_on(lambda: None)
    return follower


def say(log: EventLog, *events: tuple[str, int]) -> None:
    for name, step in events:
        if name == "sample":
            one = {"name": "", "prompt": "p", "reply": f"r{step}", "wanted": None}
            log.say(name, step=step, samples=[one])
        else:
            log.say(name, step=step, loss=float(step))


def test_steps_evaluations_and_samples_come_in_order(tmp_path: Path) -> None:
    events, tracker = tmp_path / "events.jsonl", Recorder()
    with EventLog(events) as log:
        log.say("phase", name="training")
        say(
            log,
            ("sample", 0),
            ("step", 1),
            ("step", 2),
            ("evaluated", 2),
            ("sample", 2),
            ("step", 3),
        )
    follow(events, tracker)
    assert tracker.points == [
        (1, {"train/loss": 1.0}), (2, {"train/loss": 2.0}), (2, {"eval/loss": 2.0}), (3, {"train/loss": 3.0}),
    ]  # fmt: skip
    assert tracker.samples == [(0, ["r0"]), (2, ["r2"])]


def test_a_growing_file_is_read_on_and_half_a_line_waits(tmp_path: Path) -> None:
    events, tracker = tmp_path / "events.jsonl", Recorder()
    follower = Follower(events, tmp_path / "state.json", tracker, Told())
    follower.pass_on(lambda: None)
    assert tracker.points == [], "no file yet"
    line = json.dumps({"event": "step", "time": 1.0, "step": 1, "loss": 1.0}) + "\n"
    events.write_text(line + line[:20])
    follower.pass_on(lambda: None)
    assert [step for step, _ in tracker.points] == [1]
    events.write_text(line + line.replace('"step": 1', '"step": 2') + "damaged\n")
    follower.pass_on(lambda: None)
    assert [step for step, _ in tracker.points] == [1, 2]


@settings(max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(1, 4))
def test_no_number_comes_twice_or_backwards(tmp_path_factory, stops: list[int], every: int) -> None:
    """A run that is killed and resumed from an earlier step, again and again, with a new tracker process each time."""
    folder = tmp_path_factory.mktemp("follow")
    events, tracker = folder / "events.jsonl", Recorder()
    done = 0
    for stop in stops:
        with EventLog(events) as log:
            begin = done - done % every  # the last checkpoint
            for step in range(begin + 1, begin + stop + 1):
                say(log, ("step", step))
                if step % every == 0:
                    say(log, ("evaluated", step))
                done = max(done, step)
        follow(events, tracker)
    told = [step for step, _ in tracker.points]
    assert told == sorted(told)
    trained = [step for step, metrics in tracker.points if "train/loss" in metrics]
    assert trained == list(range(1, done + 1)), "each step, once"
    evaluated = [step for step, metrics in tracker.points if "eval/loss" in metrics]
    assert evaluated == list(range(every, done + 1, every))


def test_what_was_told_is_written_before_it_is_told(tmp_path: Path) -> None:
    events, state = tmp_path / "events.jsonl", tmp_path / "state.json"
    with EventLog(events) as log:
        say(log, ("step", 1), ("step", 2))

    class Dies(Recorder):
        def log(self, points: Sequence[Point]) -> None:
            assert json.loads(state.read_bytes())["step"] == 2
            raise KeyboardInterrupt

    follower = Follower(events, state, Dies(), Told())
    try:
        follower.pass_on(lambda: None)
    except KeyboardInterrupt:
        again = Recorder()
        follow(events, again)
        assert again.points == [], "perhaps it was told: it is not told twice"


def test_how_a_run_ended_is_read_from_its_events(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    endings: list[Ending] = []
    for name in ("finished", "stopped", "failed", "phase"):
        with EventLog(events) as log:
            log.say("started")
            say(log, ("step", 1))
            log.say(name, name="x")
            log.say("notice", message="afterwards")
        endings.append(follow(events, Recorder()).ending)
    assert endings == ["finished", "stopped", "failed", "failed"]


def test_a_damaged_state_begins_anew(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    assert Told.read(state) == Told()
    state.write_text("{half")
    assert Told.read(state) == Told()
    Told("r", 4, {"step"}).write(state)
    assert Told.read(state) == Told("r", 4, {"step"})
