"""`hone train --engine llamafactory`: what its files say, how its command is started, and what happens where it is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hone.backends import llamafactory
from hone.cli.main import run
from hone.config.files import read_config
from hone.config.layers import resolve
from hone.config.values import fit

THEIRS = """\
model_name_or_path: base
stage: dpo
dataset: pairs
dataset_dir: info
template: qwen
pref_beta: 0.1
output_dir: out dir
learning_rate: 1e-5
"""
OURS = """\
model: {name: base}
data: {path: rows.jsonl, max_length: 64, too_long: share, validation_split: 0.1}
tuning: {method: lora, lora: {r: 4, alpha: 8, target_modules: [q_proj, v_proj]}}
train: {batch_size: 6, learning_rate: 1e-4, epochs: 2, precision: fp32, eval_steps: 3}
output: {dir: my run}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both files, rows, and a `llamafactory-cli` that writes down how it was called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(llamafactory.VARIABLE, raising=False)
    (tmp_path / "info").mkdir()
    about = {"file_name": "pairs.json", "ranking": True}
    (tmp_path / "info" / "dataset_info.json").write_text(json.dumps({"pairs": about, "more": {}}))
    Path("theirs.yaml").write_text(THEIRS)
    Path("ours.yaml").write_text(OURS)
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    programs = tmp_path / "a bin"
    programs.mkdir()
    script = programs / "llamafactory-cli"
    script.write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\n"
        "pathlib.Path('called.json').write_text(json.dumps(sys.argv[1:]))\n"
        "sys.exit(int(pathlib.Path('code').read_text()) if pathlib.Path('code').exists() else 0)\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path


def called() -> tuple[dict[str, Any], dict[str, Any]]:
    """The training file and the datasets that the command was given."""
    verb, file = json.loads(Path("called.json").read_text())
    assert verb == "train"
    values = fit(read_config(Path(file)), Any)
    assert isinstance(values, dict)
    info = json.loads((Path(str(values["dataset_dir"])) / "dataset_info.json").read_text())
    return values, info


def test_its_own_file_is_given_as_it_is_other_stages_too(here: Path) -> None:
    words = ["train", "theirs.yaml", "learning_rate=3e-5", "num_train_epochs=1"]
    assert run([*words, "--engine", "llamafactory"]) == 0
    values, info = called()
    assert json.loads(Path("called.json").read_text())[1] == "out dir/llamafactory/train.yaml"
    assert (values["stage"], values["pref_beta"]) == ("dpo", 0.1)
    assert (values["learning_rate"], values["num_train_epochs"]) == (3e-5, 1)
    assert info == {"pairs": {"file_name": str(here / "info" / "pairs.json"), "ranking": True}}


def test_ours_is_told_in_its_language(here: Path) -> None:
    assert run(["train", "ours.yaml", "train.seed=3", "--engine", "llamafactory"]) == 0
    values, info = called()
    expected = {
        "model_name_or_path": "base", "stage": "sft", "finetuning_type": "lora", "lora_rank": 4, "lora_alpha": 8,
        "lora_target": "q_proj,v_proj", "cutoff_len": 64, "val_size": 0.1, "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 6, "learning_rate": 1e-4, "num_train_epochs": 2, "seed": 3,
        "lr_scheduler_type": "cosine", "eval_strategy": "steps", "eval_steps": 3, "output_dir": "my run",
    }  # fmt: skip
    assert {key: values.get(key) for key in expected} == expected
    assert "bf16" not in values
    rows = info["rows"]
    assert rows["file_name"] == str(here / "rows.jsonl")
    assert (rows["formatting"], rows["columns"]) == ("openai", {"messages": "messages"})


def test_ours_read_back_is_the_same_training(here: Path) -> None:
    """What it is told comes to the same settings when its file is read by our own door."""
    ours = resolve(file=Path("ours.yaml"))
    order = llamafactory.order_of_ours(ours)
    again = resolve(file=order.write()).config
    for section, keys in {
        "train": (
            "epochs",
            "batch_size",
            "schedule",
            "seed",
            "precision",
            "eval_steps",
            "weight_decay",
        ),
        "data": (
            "max_length",
            "too_long",
            "validation_split",
            "template",
            "train_on",
            "shuffle",
            "format",
        ),
        "model": ("name",),
        "tuning": ("method", "lora"),
    }.items():
        for key in keys:
            first, second = (
                getattr(getattr(ours.config, section), key),
                getattr(getattr(again, section), key),
            )
            if (section, key) == ("data", "format"):
                first = "messages"
            assert first == second, (section, key)
    assert again.learning_rate == ours.config.learning_rate


@pytest.mark.parametrize(
    "word",
    ["train.z_loss=0.1", "train.schedule=wsd", "tuning.lora.init=olora", "data.too_long=oldest", "data.template=x.jinja"],
)  # fmt: skip
def test_what_it_cannot_be_told_is_refused_by_name(
    here: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "ours.yaml", word, "--engine", "llamafactory"]) == 2
    assert word.partition("=")[0] in capsys.readouterr().err
    assert not Path("called.json").exists()


def test_words_of_ours_are_not_laid_over_its_own_file(here: Path) -> None:
    for words in (["train.epochs=1"], ["--epochs", "1"], ["rows.jsonl"]):
        assert run(["train", "theirs.yaml", *words, "--engine", "llamafactory"]) == 2
    assert not Path("called.json").exists()


def test_without_it_the_remedy_is_told_and_the_code_is_4(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(here))
    assert run(["train", "ours.yaml", "--engine", "llamafactory"]) == 4
    said = capsys.readouterr().err
    assert "pip install llamafactory" in said
    assert llamafactory.VARIABLE in said
    assert not (here / "my run").exists()
    monkeypatch.setenv(llamafactory.VARIABLE, str(here / "no python"))
    assert run(["train", "ours.yaml", "--engine", "llamafactory"]) == 4


def test_a_named_python_runs_its_module(here: Path) -> None:
    assert llamafactory.command({llamafactory.VARIABLE: sys.executable}) == [
        sys.executable, "-m", "llamafactory.cli",
    ]  # fmt: skip


def test_its_failure_is_ours(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("code").write_text("7")
    assert run(["train", "theirs.yaml", "--engine", "llamafactory"]) == 1
    assert "code 7" in capsys.readouterr().err


def test_an_unknown_engine_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "ours.yaml", "--engine", "lamafactory"]) == 2
    assert "did you mean 'llamafactory'?" in capsys.readouterr().err
