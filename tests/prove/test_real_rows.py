"""Real rows with real tokenizers on a random model with a body of 30M: train, stop, resume, chat."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from hone.runs.events import read_events

COMMAND = [sys.executable, "-m", "hone"]


def _model(folder: Path, tokenizer: Path, config: str, **more: int) -> Path:
    shape = getattr(transformers, config)(
        vocab_size=151_936, hidden_size=512, intermediate_size=1536, num_hidden_layers=8,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=32_768,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=151_645, pad_token_id=151_643,
        **more,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    return folder


CASES = {
    "gsm8k": ("gsm8k_train.jsonl", ["data.columns={user: question, assistant: answer}", "train.batch_size=16"]),
    "tau": ("tau_airline.jsonl", ["data.max_length=12000", "data.too_long=drop", "train.batch_size=2"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_train_stop_resume_chat(tmp_path: Path, shared: Path, case: str, family: str) -> None:
    file, settings = CASES[case]
    config, more = {"qwen2.5": ("Qwen2Config", {}), "qwen3": ("Qwen3Config", {"head_dim": 64})}[
        family
    ]
    model = _model(tmp_path / "model", shared / "tokenizers" / family, config, **more)
    out = tmp_path / "run"
    environment = {**os.environ, "HONE_CACHE": str(tmp_path / "cache")}
    command = [
        *COMMAND, "train", str(shared / "data" / file), "--model", str(model), "--output", str(out),
        "train.max_steps=4", "train.save_steps=1", *settings,
    ]  # fmt: skip
    child = subprocess.Popen(
        [*command, "--json"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if json.loads(line)["event"] == "step":
            child.send_signal(signal.SIGINT)
            break
    child.stdout.read()
    assert child.wait() == 130
    shown = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "GiB" in shown.stdout + shown.stderr  # peak memory is printed
    events = list(read_events(out / "events.jsonl"))
    assert [e for e in events if e.name == "resumed"]
    assert max(e["step"] for e in events if e.name == "step") == 4
    chat = [*COMMAND, "chat", str(out), "--once", "Hello", "--max-tokens", "4"]
    subprocess.run(chat, env=environment, check=True, capture_output=True)
