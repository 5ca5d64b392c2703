"""LLaMA-Factory itself beside Hone on its own example files: the same tokens, the same trained ones, the same first loss.

HONE_LLAMAFACTORY names the Python of an environment that has it; without one, or without the examples, this is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.folders import chat_rows, model_folder

pytestmark = pytest.mark.slow
PYTHON = os.environ.get("HONE_LLAMAFACTORY", "")


def test_its_own_examples_come_to_the_same(shared: Path, tmp_path: Path) -> None:
    if not PYTHON:
        pytest.skip("HONE_LLAMAFACTORY names no Python that has LLaMA-Factory")
    found = tmp_path / "found.json"
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "benchmarks/llamafactory_door.py"), "--python", PYTHON, "--examples",
            str(shared / "data/llamafactory_examples"), "--rows", "16", "--steps", "2", "--json", str(found),
        ],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    pairs = json.loads(found.read_text())
    assert len(pairs) >= 10
    for pair in pairs:
        name = pair["name"]
        assert pair["same_tokens"] == pair["same_trained"] == pair["rows"] > 0, (
            name,
            pair["differences"],
        )
        theirs, ours = pair["first_loss"]
        assert abs(theirs - ours) < 1e-4 * max(1.0, ours), name


def test_the_engine_runs_it_on_our_settings(tmp_path: Path) -> None:
    if not PYTHON:
        pytest.skip("HONE_LLAMAFACTORY names no Python that has LLaMA-Factory")
    model = model_folder(tmp_path / "a model")
    chat_rows(tmp_path / "rows.jsonl")
    done = subprocess.run(
        [
            sys.executable, "-m", "hone", "train", "rows.jsonl", "--model", str(model), "--output", "my run",
            "--engine", "llamafactory", "data.too_long=share", "data.max_length=64", "data.template=chatml",
            "train.max_steps=2", "train.batch_size=4", "train.precision=fp32", "compute.device=cpu",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "my run/adapter_model.safetensors").is_file()
    state = json.loads((tmp_path / "my run/trainer_state.json").read_text())
    assert state["global_step"] == 2
