"""Several machines, here two commands on one machine that meet over its loopback address."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from hone.runs.events import steps
from tests.backends.launched import Launched
from tests.folders import chat_rows, model_folder

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nodes")
    model_folder(folder / "model")
    chat_rows(folder / "rows.jsonl", rows=40)
    return folder


def losses(folder: Path) -> dict[int, float]:
    return {step: event["loss"] for step, event in steps(folder / "events.jsonl").items()}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1] % 30_000 + 20_000


def nodes(place: Path, output: str, *more: str, nproc: int = 1) -> tuple[Launched, Launched]:
    endpoint = f"127.0.0.1:{free_port()}"

    def node(number: int) -> Launched:
        words = ["--nnodes", "2", "--node-rank", str(number), "--rdzv-endpoint", endpoint]
        return Launched(place, output, *words, *more, nproc=nproc)

    return node(0), node(1)


def test_two_machines_are_one_run(place: Path) -> None:
    settings = ["train.max_steps=6", "train.save_steps=3"]
    first, second = nodes(place, "two", *settings)
    for code, err in (first.finish(), second.finish()):
        assert code == 0, err
    alone = Launched(place, "alone", *settings, nproc=1)
    assert alone.finish()[0] == 0
    assert losses(first.folder) == pytest.approx(losses(alone.folder), rel=1e-5)
    (said,) = first.events("ranks")
    assert (said["ranks"], said["strategy"]) == (2, "ddp")
    assert all(len(event["busy_seconds"]) == 2 for event in first.events("step"))


def test_an_error_of_one_machine_is_the_error_of_all(place: Path) -> None:
    first, second = nodes(place, "refused", "train.max_steps=3", "train.warmup_steps=9")
    for code, err in (first.finish(), second.finish()):
        assert code == 2, err
        assert "train.warmup_steps is 9" in err


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_machine_that_dies_ends_the_others(place: Path, strategy: str) -> None:
    settings = ["train.max_steps=5000", "train.save_steps=4", f"compute.strategy={strategy}"]
    first, second = nodes(place, f"died-{strategy}", *settings, nproc=2)
    first.reach(5)
    began = time.monotonic()
    second.process.send_signal(signal.SIGKILL)
    second.process.communicate()
    code, err = first.finish()
    assert code == 7, err
    assert time.monotonic() - began < 60
    assert "lost another rank" in err or "another machine" in err
    assert (first.folder / "checkpoints").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_a_machine_that_hangs_ends_the_others(place: Path, who: int) -> None:
    """Launcher and ranks stand still, as when a machine is lost without a word."""
    pair = nodes(place, f"still-{who}", "train.max_steps=5000", "train.save_steps=4")
    pair[0].reach(5)
    still, other = pair[who], pair[1 - who]
    frozen = [still.process.pid, *still.ranks()]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    code, err = other.finish()
    seconds = time.monotonic() - began
    for pid in frozen:
        os.kill(pid, signal.SIGKILL)
    still.process.communicate()
    assert code == 7, err
    assert seconds < 60
    assert "on another machine" in err


@pytest.mark.slow
def test_a_request_to_stop_at_one_machine_stops_all(place: Path) -> None:
    first, second = nodes(place, "asked", "train.max_steps=5000", "train.save_steps=4999")
    first.reach(3)
    second.process.send_signal(signal.SIGINT)
    for code, err in (first.finish(), second.finish()):
        assert code == 130, err
    (stopped,) = first.events("stopped")
    assert [event["step"] for event in first.events("saved")] == [stopped["step"]]
