"""Killed at any instant, a run ends with the same weights and losses, bit for bit, as one never killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.runs.events import read_events, steps
from tests.conftest import ROOT


class Runner:
    """Starts runs, one at a time, in processes of their own."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.killable"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, folder: Path) -> int:
        """Returns the process id."""
        assert self._server.stdin is not None
        self._server.stdin.write(f"{folder}\n")
        self._server.stdin.flush()
        return self._number()

    def wait(self) -> int:
        """Returns the exit code; a signal's is negative."""
        return self._number()

    def finish(self, folder: Path) -> str:
        self.start(folder)
        code = self.wait()
        assert code == 0, told(folder)
        return folder.with_suffix(".result").read_text()

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()

    def _number(self) -> int:
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())


def told(folder: Path) -> str:
    file = folder.with_suffix(".told")
    return file.read_text() if file.exists() else ""


def losses(folder: Path) -> dict[int, tuple[float, float]]:
    found = steps(folder / "events.jsonl")
    return {step: (event["loss"], event["grad_norm"]) for step, event in found.items()}


def evaluations(folder: Path) -> dict[int, float]:
    events = read_events(folder / "events.jsonl")
    return {event["step"]: event["loss"] for event in events if event.name == "evaluated"}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def straight(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("straight") / "run"
    return folder, runner.finish(folder)


def send_later(pid: int, folder: Path, number: signal.Signals, chance: random.Random) -> None:
    """Send a signal some events from now.

    Counted in bytes of events, so that the speed of the machine does not matter; then up to 10 ms more, so
    that any instant of a step or a save can be struck.
    """
    events = folder / "events.jsonl"
    before = events.stat().st_size if events.exists() else 0
    more, deadline = chance.randrange(200, 12_000), time.monotonic() + 5
    while time.monotonic() < deadline:
        if events.exists() and events.stat().st_size > before + more:
            break
        time.sleep(0.001)
    time.sleep(chance.random() * 0.01)
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.kill(pid, number)


@pytest.mark.fault(1)
@pytest.mark.parametrize(
    "kills", [5, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_killed_and_resumed_is_bit_for_bit_the_same(
    runner: Runner, tmp_path: Path, straight: tuple[Path, str], kills: int
) -> None:
    chance = random.Random(kills)
    struck, attempt = 0, 0
    folder = tmp_path / "run-0"
    while struck < kills:
        pid = runner.start(folder)
        send_later(pid, folder, signal.SIGKILL, chance)
        if runner.wait() == -signal.SIGKILL:
            struck += 1
            continue
        check_equal(folder, straight)
        attempt += 1
        folder = tmp_path / f"run-{attempt}"
    runner.finish(folder)
    check_equal(folder, straight)


def check_equal(folder: Path, straight: tuple[Path, str]) -> None:
    assert folder.with_suffix(".result").read_text() == straight[1]
    assert losses(folder) == losses(straight[0])
    assert list(losses(folder)) == list(range(1, 241))
    assert evaluations(folder) == evaluations(straight[0])
    assert all(path.name.startswith("step-") for path in (folder / "checkpoints").iterdir())


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)]
)
def test_asked_to_stop_and_resumed_is_the_same_too(
    runner: Runner, tmp_path: Path, straight: tuple[Path, str], number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    pid = runner.start(folder)
    send_later(pid, folder, number, random.Random(code))
    assert runner.wait() == code
    assert "killable.py" in told(folder)
    *_, stopped = read_events(folder / "events.jsonl")
    assert (stopped.name, stopped["signal"]) == ("stopped", number.name)
    assert (folder / "checkpoints" / f"step-{stopped['step']:08d}").is_dir()
    assert runner.finish(folder) == straight[1]
    assert losses(folder) == losses(straight[0])


@pytest.mark.fault(14)
def test_a_second_run_in_the_folder_is_refused(runner: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    second = Runner()
    pid = runner.start(folder)
    while not (folder / "events.jsonl").exists():
        time.sleep(0.001)
    os.kill(pid, signal.SIGSTOP)
    try:
        second.start(folder)
        assert second.wait() == 4
        assert f"process {pid}" in told(folder)
    finally:
        os.kill(pid, signal.SIGKILL)
        runner.wait()
        second.close()
