"""The training state on disk: every bit back, and what belongs to another model refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hone.engine.optimizer import build_optimizer, set_learning_rate, trained_parameters
from hone.engine.progress import Progress
from hone.engine.state import read_state, read_weights, state_bytes, write_state
from hone.errors import EnvironmentFault
from tests.engine.stand_in import TinyLoss, weights


def made(seed: int, *, moved: bool) -> tuple[TinyLoss, torch.optim.AdamW]:
    module = TinyLoss(seed=seed)
    trained = trained_parameters(module)
    optimizer = build_optimizer(trained, weight_decay=0.1, betas=(0.9, 0.999))
    if moved:
        set_learning_rate(optimizer, 0.1)
        for parameter in trained.values():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return module, optimizer


def saved(folder: Path, module: TinyLoss, optimizer: torch.optim.AdamW) -> Progress:
    progress = Progress(step=3, loss=0.1 + 0.2, tokens=10, best_loss=1 / 3, best_step=2, stale=1)
    trained = trained_parameters(module)
    write_state(folder, trained=trained, optimizer=optimizer, progress=progress)
    return progress


def test_everything_comes_back(tmp_path: Path) -> None:
    module, optimizer = made(0, moved=True)
    progress = saved(tmp_path, module, optimizer)
    drawn = torch.rand(5)
    other, other_optimizer = made(1, moved=False)
    assert weights(other) != weights(module)
    trained = trained_parameters(other)
    assert read_state(tmp_path, trained=trained, optimizer=other_optimizer) == progress
    assert weights(other) == weights(module)
    for name, parameter in trained_parameters(module).items():
        for moment, tensor in optimizer.state[parameter].items():
            assert torch.equal(tensor, other_optimizer.state[trained[name]][moment])
    assert torch.equal(torch.rand(5), drawn)


def test_only_the_weights_come_back(tmp_path: Path) -> None:
    module, optimizer = made(0, moved=True)
    saved(tmp_path, module, optimizer)
    other, _ = made(1, moved=False)
    read_weights(tmp_path, trained=trained_parameters(other))
    assert weights(other) == weights(module)


def test_the_estimate_covers_what_is_written(tmp_path: Path) -> None:
    module, optimizer = made(0, moved=True)
    saved(tmp_path, module, optimizer)
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert written <= state_bytes(trained_parameters(module), optimizer) < written + 2**21


def test_files_of_another_model_are_refused(tmp_path: Path) -> None:
    module, optimizer = made(0, moved=True)
    saved(tmp_path, module, optimizer)
    wider = TinyLoss(width=16)
    trained = trained_parameters(wider)
    with pytest.raises(EnvironmentFault, match="does not fit") as caught:
        read_state(
            tmp_path,
            trained=trained,
            optimizer=build_optimizer(trained, weight_decay=0, betas=(0.9, 0.9)),
        )
    assert "--fresh" in str(caught.value.remedy)
    fewer = {name: p for name, p in trained_parameters(module).items() if name != "head"}
    with pytest.raises(EnvironmentFault, match="head is only on one side"):
        read_weights(tmp_path, trained=fewer)


@pytest.mark.fault(32)
@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b'{"step": 1}'])
def test_progress_of_another_version_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  of json or of ours
        Progress.decode(content)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**53))
def test_progress_keeps_every_bit(number: float, count: int) -> None:
    progress = Progress(step=count, loss=number, seconds=number, best_loss=number)
    assert Progress.decode(progress.encode()) == progress


def test_an_evaluation_is_better_only_when_it_is_lower() -> None:
    progress = Progress(step=4).after_evaluation(2.0)
    assert (progress.best_step, progress.best_loss, progress.stale) == (4, 2.0, 0)
    for loss in (2.0, 3.0, None):
        progress = progress.after_evaluation(loss)
    assert (progress.best_step, progress.stale, progress.evaluated_step) == (4, 3, 4)
    assert math.isclose(progress.after_evaluation(1.9).best_loss or 0, 1.9)
