"""SFT-Play's YAML as settings of ours: the custom file of its guide, its own run file with `include:`, and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.config.layers import Resolved, resolve
from hone.errors import ConfigError

CUSTOM = """\
model:
  name: "Qwen/Qwen2.5-3B-Instruct"
  max_seq_len: 512

tuning:
  mode: "qlora"
  backend: "bnb"
  lora:
    r: 16
    alpha: 32
    dropout: 0.1

train:
  epochs: 3
  learning_rate: 2e-4
  batch_size: 4
  eval_strategy: "steps"
  eval_steps: 100
"""
BASE = """\
seed: 42
train:
  epochs: 35
  weight_decay: 0.01
  lr_scheduler_type: cosine
  warmup_ratio: 0.06
  optim: adamw_torch
  bf16: true
  fp16: false
  gradient_checkpointing: true
  batch_size: auto
  grad_accum: auto
  evaluation_strategy: steps
  load_best_model_at_end: true
  metric_for_best_model: eval_loss
  save_total_limit: 3
data:
  format: chat
  template_path: chat_templates/default.jinja
  split: {train_ratio: 0.6, val_ratio: 0.2, test_ratio: 0.2}
logging:
  backend: tensorboard
  log_interval: 1
gen:
  max_new_tokens: 200
"""
RUN = """\
include: configs/base.yaml
model:
  name: base
  local_dir: models/base
  revision: main
  trust_remote_code: true
  type: causal
  max_seq_len: 256
tuning:
  mode: lora
  lora: {r: 32, alpha: 32, dropout: 0.05, target_modules: auto}
train:
  learning_rate: 2e-4
  output_dir: outputs/run-bnb
  eval_steps: 1
  save_steps: 10
"""


def read(folder: Path, text: str, **more: object) -> Resolved:
    path = folder / "my_sft_config.yaml"
    path.write_text(text)
    return resolve(file=path, **more)  # type: ignore[arg-type]


def test_the_custom_file_of_its_guide_stands_on_its_defaults(tmp_path: Path) -> None:
    resolved = read(tmp_path, CUSTOM)
    config = resolved.config
    assert (config.model.name, config.data.max_length) == ("Qwen/Qwen2.5-3B-Instruct", 512)
    assert (config.tuning.method, config.tuning.lora.r, config.tuning.lora.dropout) == (
        "qlora",
        16,
        0.1,
    )
    assert config.train.learning_rate == 2e-4, "the setting that SFT-Play ignored"
    assert (config.train.epochs, config.train.batch_size, config.train.eval_steps) == (3.0, 32, 100)
    assert (config.train.schedule, config.train.warmup_ratio, config.train.seed) == (
        "cosine",
        0.06,
        42,
    )
    assert (config.data.path, config.data.validation_path) == (
        "data/processed/train.jsonl",
        "data/processed/val.jsonl",
    )
    assert config.output.dir == "outputs/my_sft_config"
    assert config.train.best_at_end
    assert any("auto is 8 passes" in one for one in resolved.remarks)


def test_a_run_file_that_includes_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.yaml").write_text(BASE)
    (tmp_path / "configs" / "run.yaml").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    resolved = resolve(file=Path("configs/run.yaml"))
    config = resolved.config
    assert (config.train.epochs, config.train.precision, config.train.batch_size) == (
        35.0,
        "bf16",
        8,
    )
    assert (config.output.dir, config.output.trackers) == ("outputs/run-bnb", ["tensorboard"])
    assert config.data.template == "chatml", "its default template is ChatML"
    assert resolved.origins["train.epochs"] == "configs/base.yaml:3 (train.epochs)"
    told = " ".join(resolved.remarks)
    assert "model.local_dir" in told
    assert "gen.max_new_tokens" in told


@pytest.mark.parametrize("number", ["2e-4", "'2e-4'", "0.0002"])
def test_a_rate_without_a_point_is_a_number(tmp_path: Path, number: str) -> None:
    text = CUSTOM.replace("learning_rate: 2e-4", f"learning_rate: {number}")
    assert read(tmp_path, text).config.train.learning_rate == 2e-4


def test_overrides_speak_its_language(tmp_path: Path) -> None:
    words = [
        "train.batch_size=2",
        "model.max_seq_len=256",
        "train.learning_rate=1e-4",
        "train.epochs=5",
    ]
    config = read(tmp_path, CUSTOM, overrides=[*words, "compute.threads=1"]).config
    assert (config.train.batch_size, config.data.max_length) == (16, 256), (
        "rows of a pass, times passes"
    )
    assert (config.train.learning_rate, config.train.epochs, config.compute.threads) == (
        1e-4,
        5.0,
        1,
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train: {fp16: true}", "bf16"),
        ("tuning: {mode: qlroa}", "'qlora'"),
        ("train: {learning_rte: 1, epochs: 1}", "'train.learning_rate'"),
        ("model: {type: seq2seq}", "causal"),
        ("train: {metric_for_best_model: rougeL}", "eval_loss"),
        ("tuning: {backend: tpu}", "bnb"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"{line}\ntask_mode: sft\n")
    assert words in str(caught.value)


def test_a_file_of_ours_with_a_typing_error_stays_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'tuning\.mode'"):
        read(tmp_path, "tuning: {mode: lora}\ncompute: {threads: 1}\n")


def test_without_a_file_of_held_out_rows_none_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/processed").mkdir(parents=True)
    (tmp_path / "data/processed/train.jsonl").write_text("{}\n")
    (tmp_path / "c.yaml").write_text("tuning:\n  mode: lora\n  backend: bnb\n")
    found = resolve(file=tmp_path / "c.yaml")
    assert found.config.data.validation_path is None
    assert any("no rows are held out" in one for one in found.remarks)
    (tmp_path / "data/processed/val.jsonl").write_text("{}\n")
    assert resolve(file=tmp_path / "c.yaml").config.data.validation_path is not None
