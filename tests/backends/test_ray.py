"""Ranks that Ray places: the same run, ended for the same reasons."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hone.runs.events import steps
from tests.backends.launched import Launched
from tests.folders import chat_rows, model_folder

pytestmark = [
    pytest.mark.slow,  # a cluster takes half a minute to start on two cores
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="the package ray is not installed"
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    model_folder(folder / "model")
    chat_rows(folder / "rows.jsonl", rows=40)
    return folder


def losses(folder: Path) -> dict[int, float]:
    return {step: event["loss"] for step, event in steps(folder / "events.jsonl").items()}


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def ray(place: Path, output: str, *more: str, nproc: int = 2) -> Launched:
    return Launched(place, output, "--launcher", "ray", *more, nproc=nproc)


def ranks_of(place: Path) -> list[int]:
    """The processes of the ranks, wherever Ray put them, by their rank."""
    found: dict[int, int] = {}
    mine = f"HONE_CACHE={place / 'cache'}"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            variables = (entry / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "hone.backends.rank" in words and mine in variables:
            (rank,) = (v for v in variables if v.startswith("RANK="))
            found[int(rank[5:])] = int(entry.name)
    return [found[rank] for rank in sorted(found)]


SETTINGS = ["train.max_steps=8", "train.save_steps=2", "tuning.lora.dropout=0.1"]


@pytest.fixture(scope="module")
def alone(place: Path) -> Launched:
    run = Launched(place, "alone", *SETTINGS, nproc=1)
    code, err = run.finish()
    assert code == 0, err
    return run


@pytest.mark.parametrize("nproc", [1, 2, 3])
def test_ranks_of_ray_are_one_run(place: Path, alone: Launched, nproc: int) -> None:
    run = ray(place, f"ray-{nproc}", *SETTINGS, nproc=nproc)
    code, err = run.finish()
    assert code == 0, err
    assert losses(run.folder) == pytest.approx(losses(alone.folder), rel=1e-5)
    got, want = (load_file(r.folder / "adapter_model.safetensors") for r in (run, alone))
    assert all(abs(got[k] - want[k]).max() < 1e-4 for k in want)
    logs = sorted(path.name for path in (run.folder / "logs").iterdir())
    assert logs == [f"rank-{rank}.log" for rank in range(nproc)]
    assert not list(place.glob(".hone-ray-*")), "Ray's own notes are gone"


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_killed_rank_ends_all_and_the_run_resumes_with_the_same_bits(
    place: Path, strategy: str
) -> None:
    settings = [*SETTINGS, f"compute.strategy={strategy}"]
    straight = ray(place, f"straight-{strategy}", *settings)
    code, err = straight.finish()
    assert code == 0, err
    run = ray(place, f"killed-{strategy}", *settings, "train.max_steps=8")
    run.reach(3)
    began = time.monotonic()
    os.kill(ranks_of(place)[1], signal.SIGKILL)
    code, err = run.finish()
    assert code == 7, err
    assert time.monotonic() - began < 60
    assert "rank 1 of 2 was killed by SIGKILL" in err
    assert not ranks_of(place)
    again = ray(place, f"killed-{strategy}", *settings)
    code, err = again.finish()
    assert code == 0, err
    assert again.events("resumed")
    assert weights(again.folder) == weights(straight.folder)
    assert losses(again.folder) == losses(straight.folder)


def test_a_rank_that_hangs_ends_the_run_within_a_minute(place: Path) -> None:
    run = ray(place, "hung", "train.max_steps=5000", "train.save_steps=5")
    run.reach(6)
    began = time.monotonic()
    os.kill(ranks_of(place)[1], signal.SIGSTOP)
    code, err = run.finish()
    assert code == 7, err
    assert time.monotonic() - began < 60
    assert "rank 1 of 2 gave no sign of life" in err


def test_a_request_to_stop_saves_once(place: Path) -> None:
    run = ray(place, "asked", "train.max_steps=5000", "train.save_steps=4999")
    run.reach(3)
    run.process.send_signal(signal.SIGTERM)
    code, err = run.finish()
    assert code == 143, err
    (stopped,) = run.events("stopped")
    assert [event["step"] for event in run.events("saved")] == [stopped["step"]]


def test_what_is_wrong_is_told_as_without_ray(place: Path) -> None:
    run = ray(place, "wrong", "train.max_steps=3", "train.warmup_steps=9")
    code, err = run.finish()
    assert code == 2, err
    assert "train.warmup_steps is 9" in err
