"""The trainer at the size of a small real run: it learns, survives a kill, and its files are what others load."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hone import CheckpointCallback, SFTConfig, SFTTrainer, ValidationCallback
from hone.runs.events import read_events
from tests.folders import model_folder
from tests.unit.desk import ROOT, alpaca_rows, lay

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(
        tmp_path_factory.mktemp("model") / "llama", hidden_size=64, intermediate_size=128
    )


@pytest.fixture
def desk(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(lay(folder, model))
    alpaca_rows(folder / "tatsu-lab" / "alpaca" / "train.jsonl", rows=240)
    return folder


def made(**values: object) -> SFTConfig:
    plain = {
        "base_model": "gpt2", "dataset_name": "tatsu-lab/alpaca", "dataset_format": "alpaca", "output_dir": "out",
        "learning_rate": 1e-2, "num_epochs": 6, "lora_r": 16,
    }  # fmt: skip
    return SFTConfig(**{**plain, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_it_learns(desk: Path, method: str) -> None:
    config = made(
        use_lora=method != "full", use_qlora=method == "qlora", save_merged_model=True,
        learning_rate=2e-3 if method == "full" else 1e-2,
    )  # fmt: skip
    validation = ValidationCallback(eval_steps=20)
    copies = CheckpointCallback("copies", save_steps=20, save_total_limit=2, save_best_only=True)
    result = SFTTrainer(config, callbacks=[validation, copies]).train()
    losses = [e["loss"] for e in read_events(Path("out/events.jsonl")) if e.name == "step"]
    assert losses[-1] < 0.6 * losses[0]
    assert validation.best_val_loss is not None
    assert result.metrics["best_val_loss"] == validation.best_val_loss < validation.val_losses[0][1]
    kept = sorted(Path("copies").iterdir())
    assert 1 <= len(kept) <= 2
    loaded = "out" if method == "full" else "out/merged"
    answer = AutoModelForCausalLM.from_pretrained(loaded)
    tokenizer = AutoTokenizer.from_pretrained(loaded)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "the red red"}], add_generation_prompt=True, return_tensors="pt",
        return_dict=True,
    )  # fmt: skip
    said = answer.generate(**prompt, max_new_tokens=24, do_sample=False)[0]
    assert said[-1].item() == tokenizer.convert_tokens_to_ids("<|im_end|>"), "it stops"


def test_killed_and_called_again_it_ends_as_if_it_had_not_been(desk: Path) -> None:
    code = (
        "from hone import SFTConfig, SFTTrainer\n"
        "import sys\n"
        "config = SFTConfig(base_model='gpt2', dataset_name='tatsu-lab/alpaca', dataset_format='alpaca',\n"
        "    output_dir=sys.argv[1], max_steps=40, save_steps=5, lora_dropout=0.2)\n"
        "print(SFTTrainer(config).train()['train_loss'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def start(folder: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    straight, _ = start("straight").communicate()
    killed = start("killed")
    while not list(Path("killed/checkpoints").glob("step-*")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    resumed, told = start("killed").communicate()
    assert "resumed after step" in told
    assert resumed == straight
    one, two = (load_file(f"{name}/adapter_model.safetensors") for name in ("straight", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_example_program_says_what_it_does(desk: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for name in ("sft_alpaca", "sft_chat_qlora"):
        file = desk / "config" / "examples" / f"{name}.yaml"
        text = file.read_text().replace('dataset_split: "train_sft"\n', "")
        file.write_text(re.sub('output_dir: ".*"', f'output_dir: "{name}"', text))
        done = subprocess.run(
            [sys.executable, "examples/train_sft.py", "--config", str(file), "--no-wandb"],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "a step   16 rows" in done.stdout
        assert "wandb    off" in done.stdout
        assert re.search(r"mean loss \d", done.stdout)
        assert ("  merged/" in done.stdout) == (name == "sft_chat_qlora")
        base = AutoModelForCausalLM.from_pretrained("gpt2")
        assert PeftModel.from_pretrained(base, name)
    absent = subprocess.run(
        [sys.executable, "examples/train_sft.py", "--config", "absent.yaml"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert absent.returncode == 2
    assert "no such configuration file" in absent.stderr


def said_by_the_readme_s(word: str) -> str:
    """What the README's one example with this word prints, run as it stands there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = [
        b for b in re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S) if word in b
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_trainer_runs_as_printed(desk: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+ \d+\.\d+ outputs\n", said_by_the_readme_s("SFTTrainer(config"))
    told = [e["step"] for e in read_events(Path("outputs/events.jsonl")) if e.name == "evaluated"]
    assert {10, 20} <= set(told)


def test_the_readmes_trainable_model_runs_as_printed(desk: Path) -> None:
    model_folder(Path("MODEL"))
    said = said_by_the_readme_s("with LocalBackend()")
    assert said.endswith("1 " + str(desk / ".hone/sft-project/models/agent-001/checkpoints/0001\n"))


def test_two_devices_train_the_same_rows(desk: Path) -> None:
    plain = {"mixed_precision": None, "max_steps": 4, "max_grad_norm": 1.0, "learning_rate": 1e-3}
    one = SFTTrainer(made(**plain, output_dir="one", gradient_accumulation_steps=4)).train()
    two = SFTTrainer(
        made(**plain, output_dir="two", gradient_accumulation_steps=2, num_devices=2)
    ).train()
    assert two.metrics["steps"] == one.metrics["steps"] == 4
    assert two.train_loss == pytest.approx(one.train_loss, rel=1e-5)
    assert two.metrics["val_loss"] == pytest.approx(one.metrics["val_loss"], rel=1e-4)
