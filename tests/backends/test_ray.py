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
from tests.backends.launched import Launched, children
from tests.folders import chat_rows, model_folder

pytestmark = [
    pytest.mark.slow,  # a cluster takes 20 s to start here
    pytest.mark.timeout(600),
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


def ray(place: Path, output: str, *more: str, nproc: int = 2) -> Launched:
    return Launched(place, output, "--launcher", "ray", *more, nproc=nproc)


SETTINGS = ["train.max_steps=8", "train.save_steps=4"]


@pytest.fixture(scope="module")
def alone(place: Path) -> Launched:
    run = Launched(place, "alone", *SETTINGS, nproc=1)
    assert run.finish()[0] == 0
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
