"""Trackers that fail at any moment, on made-up packages in real processes: the run hears of it once, and goes on."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.cli.main import run
from hone.errors import EnvironmentFault
from hone.runs.events import EventLog
from hone.runs.folder import RunFolder
from hone.runs.trackers.choice import check_installed
from hone.runs.tracking import Tracking

SECRET = "key-f00dcafe"

# A stand-in for `trackio` (four calls are used) that writes each call down, and fails as `fault` says.
PACKAGE = """
import json, os, signal, time
from pathlib import Path

fault = os.environ.get("FAULT", "")
calls = Path(os.environ["CALLS"])

def note(call, /, **what):
    with calls.open("a") as file:
        file.write(json.dumps({"call": call, **what}) + "\\n")
    if fault == f"raise in {call}":
        raise ConnectionError(f"no route to https://me:pw@host with {os.environ['TRACKIO_WRITE_TOKEN']}")
    if fault == f"hang in {call}":
        time.sleep(600)
    if fault == f"die in {call}":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == f"exit in {call}":
        raise SystemExit(3)
    if fault == "slow":
        time.sleep(0.2)
    print("chatter that no screen may show")

note("import")

class Run:
    def log(self, metrics, step=None):
        note("log", step=step, metrics={k: v for k, v in metrics.items() if isinstance(v, float)})
    def finish(self):
        note("finish")

def Markdown(text):
    return text

def init(**settings):
    note("init", name=settings["name"], project=settings["project"], resume=settings["resume"], config=settings["config"])
    return Run()
"""


class Stage:
    """A run folder, a made-up package, and what both came to."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.create(path / "run")
        self.calls_file = path / "calls"
        self.set_config()

    def set_config(self, **track: object) -> None:
        config = {"output": {"track": {"project": "p", **track}}, "train": {"epochs": 1}}
        self.folder.write_identity({"config": config})

    @property
    def calls(self) -> list[dict[str, Any]]:
        if not self.calls_file.exists():
            return []
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    def of(self, name: str) -> list[dict[str, Any]]:
        return [call for call in self.calls if call["call"] == name]

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.folder.events_file.read_text().splitlines()]

    @property
    def notices(self) -> list[str]:
        return [one["message"] for one in self.told if one["event"] == "notice"]

    def run(
        self,
        steps: range,
        *,
        last: str | None = "finished",
        then: Callable[[Tracking], object] | None = None,
        **options: float,
    ) -> float:
        """Say these steps; how many seconds that took, without the wait afterwards."""
        with self.folder.events() as log:
            with Tracking(self.folder, ["trackio"], log.say, **options) as tracking:
                began = time.monotonic()
                log.say("started", folder="run")
                for step in steps:
                    say_step(log, step)
                if last is not None:
                    log.say(last, step=steps.stop - 1)
                took = time.monotonic() - began
                if then is not None:
                    then(tracking)
            return took

    def wait_for(self, name: str, count: int = 1) -> None:
        until = time.monotonic() + 30
        while len(self.of(name)) < count:
            assert time.monotonic() < until, f"no {name}: {self.calls}"
            time.sleep(0.02)


def say_step(log: EventLog, step: int) -> None:
    log.say(
        "step", step=step, loss=1 / step, grad_norm=1.0, learning_rate=0.1, tokens=10,
        trained_tokens=5, computed_tokens=8, seconds=0.1, epoch=1.0, peak_memory_bytes=1,
    )  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    package = tmp_path / "packages" / "trackio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(PACKAGE))
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("TRACKIO_WRITE_TOKEN", SECRET)
    return Stage(tmp_path)


def test_each_number_is_told_once_and_in_order(stage: Stage) -> None:
    stage.run(range(1, 6))
    assert [call["call"] for call in stage.calls] == ["import", "init", *["log"] * 5, "finish"]
    assert [call["step"] for call in stage.of("log")] == [1, 2, 3, 4, 5]
    assert stage.of("log")[1]["metrics"]["train/loss"] == 0.5
    (begun,) = stage.of("init")
    assert (begun["name"], begun["project"], begun["resume"]) == ("run", "p", "never")
    assert begun["config"]["train.epochs"] == 1
    assert stage.notices == []
    places = [one["place"] for one in stage.told if one["event"] == "tracking"]
    assert places == ["trackio show --project p"]


def test_a_resumed_run_goes_on_in_the_same_place_without_doubles(stage: Stage) -> None:
    stage.run(range(1, 6), last="stopped")
    stage.run(range(4, 9))  # steps 4 and 5 are done again
    assert [call["step"] for call in stage.of("log")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [(c["name"], c["resume"]) for c in stage.of("init")] == [
        ("run", "never"),
        ("run", "allow"),
    ]


def test_what_a_tracker_missed_is_told_when_it_is_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "raise in import")
    stage.run(range(1, 4), last="stopped")
    monkeypatch.setenv("FAULT", "")
    stage.run(range(3, 6))
    assert [call["step"] for call in stage.of("log")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("how", "place"),
    [
        *(("raise", place) for place in ("import", "init", "log", "finish")),
        ("die", "init"), ("die", "log"), ("exit", "finish"),
    ],
)  # fmt: skip
def test_a_failure_anywhere_is_told_once_without_secrets(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, place: str, how: str
) -> None:
    monkeypatch.setenv("FAULT", f"{how} in {place}")
    took = stage.run(range(1, 40))
    assert took < 2
    (notice,) = stage.notices
    assert notice.startswith("trackio: gets no more of this run: ")
    if how == "raise":
        assert "ConnectionError: no route to https://***@host with ***" in notice
    text = stage.folder.events_file.read_text()
    assert SECRET not in text
    assert "me:pw" not in text
    kept = "".join(path.read_text() for path in stage.folder.tracking_folder.glob("*.json"))
    assert SECRET not in kept


@pytest.mark.parametrize("place", ["import", "log", "finish"])
def test_one_that_hangs_is_told_of_and_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("FAULT", f"hang in {place}")
    began = time.monotonic()
    took = stage.run(range(1, 40), then=lambda _: stage.wait_for("import"), grace_seconds=1.5)
    assert took < 2
    assert time.monotonic() - began < 30
    (notice,) = stage.notices
    assert "was not ready when the run was over" in notice


def test_one_that_is_silent_is_told_of_while_the_run_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "hang in init")

    def until_told(_: Tracking) -> None:
        until = time.monotonic() + 30
        while not stage.notices:
            assert time.monotonic() < until
            time.sleep(0.05)

    stage.run(range(1, 3), then=until_told, silent_seconds=1.0, grace_seconds=0.5)
    first, second = stage.notices
    assert "has not been heard of for 1 seconds" in first
    assert "was not ready" in second


def test_a_slow_one_slows_nothing_and_gets_everything(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "slow")
    took = stage.run(range(1, 21))
    assert took < 2, "twenty steps of 0.2 seconds each would be four"
    assert [call["step"] for call in stage.of("log")] == list(range(1, 21))
    assert stage.notices == []


def test_one_that_is_killed_beside_a_live_run_is_told_of(stage: Stage) -> None:
    def kill(tracking: Tracking) -> None:
        stage.wait_for("log", 3)
        (pid,) = tracking.pids
        os.kill(pid, signal.SIGKILL)

    stage.run(range(1, 4), then=kill)
    assert stage.notices == ["trackio: gets no more of this run: its process ended"]


def test_no_process_is_left_behind(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []
    for fault in ("", "raise in log", "hang in log"):
        monkeypatch.setenv("FAULT", fault)
        stage.run(range(1, 3), then=lambda t: pids.extend(t.pids), grace_seconds=1.0)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert len(pids) == 3


def test_a_user_who_insists_does_not_wait(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "hang in import")

    def insist(_: Tracking) -> None:
        stage.wait_for("import")
        insisted.append(time.monotonic())
        raise KeyboardInterrupt

    insisted: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        stage.run(range(1, 3), then=insist)
    assert time.monotonic() - insisted[0] < 8


def test_the_command_of_the_process_holds_no_secret(stage: Stage) -> None:
    shown: list[str] = []

    def look(tracking: Tracking) -> None:
        (pid,) = tracking.pids
        shown.append(Path(f"/proc/{pid}/cmdline").read_text())

    stage.run(range(1, 2), then=look)
    assert SECRET not in shown[0]
    assert "hone.runs.trackers" in shown[0]


def test_an_absent_package_is_refused_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="wandb and mlflow are not installed") as caught:
        check_installed(["wandb", "mlflow"])
    assert caught.value.exit_code == 4
    assert "pip install wandb mlflow" in (caught.value.remedy or "")
    check_installed([])


def test_trackers_hear_of_a_run_afterwards(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULT", "raise in init")
    stage.run(range(1, 4))
    folder = str(stage.folder.path)
    assert run(["runs", "track", folder, "trackio"]) == 6
    assert "no route to" in capsys.readouterr().err
    monkeypatch.setenv("FAULT", "")
    assert run(["runs", "track", folder, "trackio"]) == 0
    assert [call["step"] for call in stage.of("log")] == [1, 2, 3]
    assert "trackio: trackio show --project p" in capsys.readouterr().out
    assert run(["runs", "track", folder]) == 2
    assert run(["runs", "track", folder, "trakio"]) == 2
    assert "did you mean 'trackio'?" in capsys.readouterr().err
