"""Real agent conversations on the whole road: ShareGPT, processed, trained, evaluated by their calls, merged, GGUF, served, asked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.workflows.desk import ROOT, typed

SHARED = Path(os.environ.get("HONE_SHARED", ROOT.parent / "shared"))
ROWS, TOKENIZER = SHARED / "data/tau_airline.jsonl", SHARED / "tokenizers/qwen2.5"
RUN = "workflows/saves/tiny-qwen/tau2_sft"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not ROWS.is_file(), reason=f"no agent rows at {ROWS}"),
]


def ask(port: int, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_from_agent_rows_to_an_answer(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "workflows", tmp_path / "workflows", ignore=shutil.ignore_patterns("workdir", "saves"))  # fmt: skip
    shutil.copytree(TOKENIZER, tmp_path / "tiny-qwen")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32_768, tie_word_embeddings=True, bos_token_id=151_643,
        eos_token_id=151_645,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "tiny-qwen")
    lines = ROWS.read_bytes().splitlines(keepends=True)[:24]
    (tmp_path / "tau.jsonl").write_bytes(b"".join(lines))

    def run(command: str) -> str:
        done = typed(command, tmp_path)
        assert done.returncode == 0, (command, done.stderr[-2000:])
        return done.stdout

    run("hone convert tau.jsonl tau.json --to sharegpt")
    trained = run(
        "bash workflows/run_sft.sh tau.json --model tiny-qwen --finetuning-type lora --lr 0.001 --grad-accum 4 "
        "-- compute.threads=1 train.max_steps=2"
    )
    assert "finished: 2 steps" in trained
    for rows, out in (("tau_processed.json", "spelled"), ("tau.jsonl", "declared")):
        run(f"hone evaluate {RUN} {rows} --metric tool_call --metric tool_name --metric loss --limit 3 --max-tokens 8 --out {out}")  # fmt: skip
        measures = json.loads((tmp_path / out / "result.json").read_text())["measures"]
        assert measures["tool_call"]["questions"] > 3
        assert measures["loss"]["tuned_is"] in ("better", "too few rows")
    run(f"hone merge {RUN} --to merged --dtype fp32")
    assert "read back: " in run(f"hone export {RUN} --to gguf --out gguf")
    assert list((tmp_path / "gguf").glob("*.gguf"))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    command = [sys.executable, "-m", "hone", "serve", "merged", "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 120
            while True:
                try:
                    body = {"model": "merged", "messages": [{"role": "user", "content": "Book me a flight"}], "max_tokens": 4}  # fmt: skip
                    said = ask(port, body)
                    break
                except OSError:
                    assert time.monotonic() < until
                    time.sleep(0.5)
        finally:
            server.terminate()
    assert said["usage"]["completion_tokens"] == 4  # type: ignore[index]
