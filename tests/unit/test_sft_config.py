"""The flat configuration: defaults, what is refused and when, and what each key is in ours."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from hone import SFTConfig
from hone.config.dialects.flat import (
    _ASIDE,
    SETTINGS,
    TEMPLATES,
    flat_words,
    keys,
)
from hone.config.fields import settings
from hone.data.named_templates import NAMED
from hone.errors import ConfigError, NoSuchConfig, UnknownSetting

NEEDED = {"base_model": "gpt2", "dataset_name": "rows.jsonl", "dataset_format": "alpaca"}


def made(**values: Any) -> SFTConfig:
    return SFTConfig(**{**NEEDED, **values})


def ours(config: SFTConfig) -> Any:
    return config.resolved().config


def test_the_documented_defaults() -> None:
    config = made()
    documented = {
        "use_lora": True, "use_qlora": False, "lora_r": 8, "lora_alpha": 16, "validation_split": 0.1,
        "max_seq_length": 2048, "batch_size": 4, "gradient_accumulation_steps": 4, "learning_rate": 2e-4,
        "num_epochs": 3, "mixed_precision": "bf16", "output_dir": "./sft_outputs", "save_steps": 100,
        "save_merged_model": False, "lora_dropout": 0.05, "warmup_ratio": 0.03, "weight_decay": 0.001,
        "max_grad_norm": 0.3, "scheduler_type": "cosine", "save_total_limit": 3, "logging_steps": 10,
    }  # fmt: skip
    assert {key: getattr(config, key) for key in documented} == documented
    train = ours(config).train
    assert (train.batch_size, train.learning_rate, train.epochs) == (16, 2e-4, 3)
    assert (train.warmup_ratio, train.weight_decay, train.max_grad_norm) == (0.03, 0.001, 0.3)
    assert train.precision == "bf16"


def test_every_key_has_its_place_in_the_table() -> None:
    assert set(keys()) == set(SETTINGS) | set(_ASIDE)
    assert not set(SETTINGS) & set(_ASIDE)
    assert set(SETTINGS.values()) <= set(settings())
    assert len(set(SETTINGS.values())) == len(SETTINGS)
    assert set(TEMPLATES) == set(NAMED)


@pytest.mark.parametrize(
    ("key", "value", "setting", "there"),
    [
        ("base_model", "m", "model.name", "m"),
        ("dataset_name", "org/set", "data.path", "org/set"),
        ("dataset_split", "test", "data.split", "test"),
        ("validation_split", 0.05, "data.validation_split", 0.05),
        ("max_seq_length", 512, "data.max_length", 512),
        ("template_name", "llama2", "data.template", "llama2"),
        ("use_lora", False, "tuning.method", "full"),
        ("use_qlora", True, "tuning.method", "qlora"),
        ("lora_r", 32, "tuning.lora.r", 32),
        ("lora_alpha", 64, "tuning.lora.alpha", 64),
        ("lora_dropout", 0.2, "tuning.lora.dropout", 0.2),
        ("lora_target_modules", ["c_attn"], "tuning.lora.target_modules", ["c_attn"]),
        ("batch_size", 3, "train.batch_size", 12),
        ("gradient_accumulation_steps", 5, "train.batch_size", 20),
        ("num_devices", 2, "compute.nproc", 2),
        ("learning_rate", 1e-5, "train.learning_rate", 1e-5),
        ("num_epochs", 0.5, "train.epochs", 0.5),
        ("max_steps", 7, "train.max_steps", 7),
        ("warmup_ratio", 0.1, "train.warmup_ratio", 0.1),
        ("weight_decay", 0, "train.weight_decay", 0),
        ("max_grad_norm", 1, "train.max_grad_norm", 1),
        ("optimizer_type", "adamw", "train.optimizer", "adamw"),
        ("optimizer_type", "paged_adamw_8bit", "train.optimizer", "paged_adamw_8bit"),
        ("scheduler_type", "linear", "train.schedule", "linear"),
        ("mixed_precision", None, "train.precision", "fp32"),
        ("seed", 9, "train.seed", 9),
        ("save_steps", 50, "train.save_steps", 50),
        ("eval_steps", 25, "train.eval_steps", 25),
        ("save_total_limit", 1, "train.save_total_limit", 1),
        ("gradient_checkpointing", True, "compute.gradient_checkpointing", True),
        ("device_map", "cpu", "compute.device", "cpu"),
        ("output_dir", "out", "output.dir", "out"),
        ("wandb_project", "p", "output.track.project", "p"),
    ],
)  # fmt: skip
def test_a_key_sets_its_setting(key: str, value: Any, setting: str, there: Any) -> None:
    config = made()
    setattr(config, key, value)  # later, as the documents do; the constructor goes the same way
    assert config == made(**{key: value})
    place: Any = ours(config)
    for part in setting.split("."):
        place = getattr(place, part)
    assert place == there
    assert config.resolved().origins[setting] == f"SFTConfig.{key}"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("base_model", "", "base_model"),
        ("dataset_name", " ", "dataset_name"),
        ("dataset_format", "sharegpt", "'alpaca' or 'chat' or 'completion'"),
        ("validation_split", 1.0, "below 1"),
        ("validation_split", -0.1, "at least 0"),
        ("lora_r", 0, "at least 1"),
        ("lora_r", 5000, "at most 1024"),
        ("lora_alpha", 0, "above 0"),
        ("lora_dropout", 1, "below 1"),
        ("batch_size", 0, "at least 1"),
        ("gradient_accumulation_steps", 0, "at least 1"),
        ("num_epochs", 0, "above 0"),
        ("learning_rate", -1, "above 0"),
        ("learning_rate", float("nan"), "learning_rate"),
        ("max_steps", 0, "at least 1"),
        ("warmup_ratio", 1, "below 1"),
        ("weight_decay", -1, "at least 0"),
        ("max_grad_norm", -1, "at least 0"),
        ("mixed_precision", "fp8", "'bf16'"),
        ("mixed_precision", "fp16", "loss scaling"),
        ("optimizer_type", "sgd", "'adamw'"),
        ("scheduler_type", "step", "'cosine'"),
        ("template_name", "chatlm", "did you mean 'chatml'"),
        ("dataset_text_field", "body", "'completion'"),
        ("use_lora", "perhaps", "use_lora"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(key: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        made(**{key: value})
    assert isinstance(caught.value, ConfigError)
    assert said in str(caught.value)
    config = made()
    before = config.to_dict()
    with pytest.raises(ConfigError) as later:
        setattr(config, key, value)
    assert said in str(later.value)
    assert config.to_dict() == before, "a refused value leaves no trace"


def test_a_quantised_base_needs_an_adapter() -> None:
    config = made(use_lora=False)
    with pytest.raises(ConfigError, match="use_qlora needs use_lora"):
        config.use_qlora = True
    config.use_lora = True
    config.use_qlora = True
    assert ours(config).tuning.method == "qlora"
    assert ours(config).tuning.quantization.bits == 4


def test_an_unknown_key_is_refused_with_the_nearest_wherever_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("base_model: m\ndataset_name: d\ndataset_format: chat\nlora_rank: 4\n")
    config = made()
    for trial in (
        lambda: made(lora_rank=4),
        lambda: SFTConfig.from_dict({**NEEDED, "lora_rank": 4}),
        lambda: SFTConfig.from_yaml(file),
        lambda: setattr(config, "lora_rank", 4),
        lambda: config.lora_rank,  # type: ignore[attr-defined]
    ):
        with pytest.raises(UnknownSetting, match="did you mean 'lora_r'") as caught:
            trial()
        assert isinstance(caught.value, TypeError)
    with pytest.raises(UnknownSetting) as caught:
        SFTConfig.from_yaml(file)
    assert caught.value.where == f"{file}:4"
    assert not hasattr(config, "lora_rank")


def test_a_name_of_ours_is_told_what_it_is_here() -> None:
    with pytest.raises(UnknownSetting, match="did you mean 'num_epochs'"):
        SFTConfig.from_dict({**NEEDED, "train.epochs": 2})


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        SFTConfig(base_model="m")  # type: ignore[call-arg]
    assert "dataset_name is missing" in str(caught.value)
    assert "dataset_format is missing" in str(caught.value)
    with pytest.raises(NoSuchConfig) as absent:
        SFTConfig.from_yaml(tmp_path / "absent.yaml")
    assert isinstance(absent.value, FileNotFoundError)
    listed = tmp_path / "list.yaml"
    listed.write_text("- base_model\n")
    with pytest.raises(ValueError, match="is a mapping"):
        SFTConfig.from_yaml(listed)


def test_yaml_is_read_as_it_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "base_model: 007\ndataset_name: 2024-01-01\ndataset_format: alpaca\nlearning_rate: 3e-4\n"
        "mixed_precision: null\nuse_qlora: true\nmax_steps: 1e2\n"
    )
    config = SFTConfig.from_yaml(str(file))
    assert (config.base_model, config.dataset_name) == ("007", "2024-01-01")
    assert (config.learning_rate, config.max_steps) == (3e-4, 100)
    assert config.mixed_precision is None
    assert config.use_qlora
    assert config.resolved().origins["train.learning_rate"] == f"{file}:4"
    file.write_text("base_model: m\ndataset_name: d\ndataset_format: chat\nlora_r: many\n")
    with pytest.raises(ConfigError) as caught:
        SFTConfig.from_yaml(file)
    assert caught.value.where == f"{file}:4"


@settings_of_hypothesis(max_examples=25)
@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "base_model": st.text(min_size=1).filter(str.strip),
            "learning_rate": st.floats(1e-8, 1.0),
            "lora_r": st.integers(1, 256),
            "max_steps": st.none() | st.integers(1, 10**6),
            "mixed_precision": st.sampled_from(["bf16", None]),
            "lora_target_modules": st.none() | st.lists(st.text(min_size=1), min_size=1, max_size=3),
            "run_name": st.none() | st.text(),
            "use_qlora": st.booleans(),
            "gradient_checkpointing": st.sampled_from(["auto", True, False]),
        },
    )
)  # fmt: skip
def test_written_and_read_again_it_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    config = made(**values)
    path = tmp_path_factory.getbasetemp() / "again.yaml"
    config.to_yaml(path)
    again = SFTConfig.from_yaml(path)
    assert again == config
    assert again.resolved().config == config.resolved().config
    assert SFTConfig.from_dict(config.to_dict()) == config == copy.deepcopy(config)


def test_rows_of_a_step_are_those_of_all_devices() -> None:
    config = made(batch_size=2, gradient_accumulation_steps=8, num_devices=3)
    assert config.get_effective_batch_size() == 48 == ours(config).train.batch_size


def test_formats_choose_templates_and_a_name_overrides() -> None:
    assert ours(made()).data.template == "alpaca"
    assert ours(made()).data.input_heading == "### Input:"
    assert ours(made(dataset_format="chat")).data.template == "chatml"
    chosen = ours(made(template_name="chatml")).data
    assert (chosen.template, chosen.input_heading) == ("chatml", None)


def test_no_validation_leaves_its_interval_aside() -> None:
    config = made(eval_steps=50)
    config.validation_split = 0.0
    assert ours(config).train.eval_steps is None
    assert ours(config).data.validation_split == 0


def test_sentences_about_settings_speak_of_the_keys() -> None:
    said = "train.epochs has no effect: train.max_steps is set; data.max_length=9, train.eval_steps"
    assert (
        flat_words(said)
        == "num_epochs has no effect: max_steps is set; max_seq_length=9, eval_steps"
    )


def test_importing_the_face_loads_nothing_heavy() -> None:
    code = (
        "import sys, hone\n"
        "assert 'pydantic' not in sys.modules\n"
        "from hone import SFTConfig, SFTTrainer, ValidationCallback, CheckpointCallback, WandBCallback, SFTCallback\n"
        "assert not {'torch', 'transformers', 'peft', 'wandb'} & set(sys.modules)\n"
        "assert set(hone.__all__) <= set(dir(hone))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
