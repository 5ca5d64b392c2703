"""Killed with SIGKILL at random instants, restarted by the same command: the same bits as never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hone.runs.events import steps
from tests.folders import chat_rows, model_folder

KILLS = 25
COMMAND = [sys.executable, "-m", "hone"]


def _environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "HONE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}


def _arguments(tmp_path: Path, out: str, *more: str) -> list[str]:
    return [
        *COMMAND, "train", str(tmp_path / "rows.jsonl"), "--model", str(tmp_path / "model"),
        "--output", str(tmp_path / out), "--batch-size", "4", "train.max_steps=60",
        "train.save_steps=3", "train.precision=fp32", "compute.micro_batch_tokens=60",
        "data.validation_split=0.1", "train.eval_steps=7", "compute.threads=1", *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_killed_25_times_equals_never_killed(tmp_path: Path, method: str) -> None:
    chat_rows(tmp_path / "rows.jsonl", rows=60)
    model_folder(tmp_path / "model")
    environment = _environment(tmp_path)
    more = [f"tuning.method={method}", "--json"]
    more += ["tuning.lora.dropout=0.1"] if method == "lora" else []
    subprocess.run(
        _arguments(tmp_path, "straight", *more),
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    # A run is mostly start-up; instants are drawn over what is left of it after that.
    rng = random.Random(7)
    kills = 0
    for _ in range(KILLS):
        child = subprocess.Popen(
            _arguments(tmp_path, "killed", *more), env=environment, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        wanted = rng.choice([b'"step"', b'"saved"', b'"phase"', b'"evaluated"', b'"started"'])
        for line in child.stdout:
            if wanted in line:
                break
        time.sleep(rng.random() * 0.05)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.stdout.close()
        child.wait()
    assert kills == KILLS
    subprocess.run(
        _arguments(tmp_path, "killed", *more),
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (killed / name).read_bytes() == (straight / name).read_bytes()
    want = {k: e["loss"] for k, e in steps(straight / "events.jsonl").items()}
    got = {k: e["loss"] for k, e in steps(killed / "events.jsonl").items()}
    assert got == want
