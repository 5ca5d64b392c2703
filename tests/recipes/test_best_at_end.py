"""`train.best_at_end`: the artifact holds the best checkpoint's weights, though the run went on and got worse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hone.config.layers import resolve
from hone.errors import ConfigError
from hone.recipes.train import train
from hone.runs.events import read_events
from hone.runs.folder import RunFolder
from tests.folders import chat_rows, model_folder


def test_the_artifact_is_the_best_and_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    rows, model = chat_rows(tmp_path / "rows.jsonl"), model_folder(tmp_path / "model")
    words = [
        f"data.path={rows}", f"model.name={model}", "train.precision=fp32", "compute.threads=1", "train.batch_size=8",
        "data.validation_split=0.3", "train.max_steps=4", "train.eval_steps=1", "train.save_steps=1",
        "train.save_total_limit=9", "train.schedule=constant", "train.warmup_ratio=0", "tuning.method=full",
        "train.learning_rate=1", "train.best_at_end=true",
    ]  # fmt: skip
    done = train(
        resolve(overrides=[*words, f"output.dir={tmp_path / 'run'}"]), command=["hone", "train"]
    )
    store = RunFolder(done.folder).checkpoints(keep=9)
    best = store.best()
    assert best is not None
    assert best.step < 4, "steps of this size make it worse"
    made = load_file(done.folder / "model.safetensors")
    kept = load_file(best.path / "weights.safetensors")
    assert made
    assert all(torch.equal(value, kept[f"model.{name}"]) for name, value in made.items())
    told = [
        one["message"] for one in read_events(done.folder / "events.jsonl") if one.name == "notice"
    ]
    assert f"train.best_at_end: the artifact holds the weights of step {best.step}" in told


def test_it_needs_held_out_rows() -> None:
    with pytest.raises(ConfigError, match=r"train\.best_at_end needs held-out rows"):
        resolve(overrides=["train.best_at_end=true"])
