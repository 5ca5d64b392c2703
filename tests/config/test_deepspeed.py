"""DeepSpeed files read against our configuration: what is filled, what is refused, and by what name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hone.config.deepspeed import PRESETS, DeepSpeed, Facts, read_deepspeed, resolve_deepspeed
from hone.config.sections import TrainSection
from hone.errors import ConfigError

FACTS = Facts(
    train=TrainSection(batch_size=16, max_grad_norm=0.5, weight_decay=0.1),
    precision="bf16",
    learning_rate=1e-4,
    betas=(0.9, 0.999),
    world=2,
    hidden_size=64,
)


def resolve(settings: dict[str, Any]) -> DeepSpeed:
    return resolve_deepspeed(settings, FACTS, where="ds.json")


def has_auto(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(has_auto, value.values()))
    return value == "auto"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_writes_everything_that_would_change_a_result(name: str) -> None:
    found = resolve(read_deepspeed(name))
    assert found.stage == int(name[4])
    assert found.settings["gradient_clipping"] == 0.5
    assert found.settings["train_batch_size"] == 2
    assert found.settings["train_micro_batch_size_per_gpu"] == 1
    assert found.settings["zero_allow_untested_optimizer"] is True
    assert not has_auto(found.settings)
    json.dumps(found.settings)
    assert not found.notices


EXAMPLES = {
    "z0": 0, "z2": 2, "z2_offload": 2, "z3": 3, "z3_offload": 3, "z3_fp8": 3,
}  # fmt: skip


@pytest.mark.parametrize(("name", "stage"), EXAMPLES.items())
def test_files_written_for_llamafactory_work(shared: Path, name: str, stage: int) -> None:
    path = shared / "data" / "llamafactory_examples" / f"deepspeed__ds_{name}_config.json"
    found = resolve(read_deepspeed(str(path)))
    assert found.stage == stage
    assert found.settings["gradient_clipping"] == 0.5
    assert not has_auto(found.settings)
    if name == "z3":
        assert found.settings["zero_optimization"]["reduce_bucket_size"] == 64 * 64
        assert found.settings["zero_optimization"]["stage3_param_persistence_threshold"] == 640
    if name == "z3_fp8":
        assert any("zero_force_ds_cpu_optimizer" in notice for notice in found.notices)


def test_one_that_splits_tensors_is_refused_by_name(shared: Path) -> None:
    path = shared / "data" / "llamafactory_examples" / "deepspeed__ds_z2_autotp_config.json"
    with pytest.raises(ConfigError, match=r"tensor_parallel\.autotp_size is 2") as caught:
        read_deepspeed(str(path))
    assert "zero3" in str(caught.value.remedy)


ZERO2 = {"zero_optimization": {"stage": 2}}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"gradient_clipping": 1.0}, r"gradient_clipping is 1.0 .* train.max_grad_norm is 0.5"),
        ({"train_batch_size": 32}, r"train_batch_size is 32 .* train.batch_size is 16"),
        (
            {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 4},
            r"train_batch_size is 32",
        ),
        ({"bf16": {"enabled": False}}, r"bf16.enabled is False .* train.precision is 'bf16'"),
        ({"fp16": {"enabled": True}}, r"fp16.enabled is true"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, r"grad_accum_dtype is 'bf16'"),
        ({"optimizer": {"type": "Lamb"}}, r"optimizer.type is 'Lamb'"),
        ({"optimizer": {"params": {"lr": 0.1}}}, r"optimizer.params.lr is 0.1 .* 0.0001"),
        (
            {"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 5}}},
            r"scheduler is 'WarmupLR'",
        ),
        (
            {"zero_optimization": {"stage": 2, "reduce_scatter": "auto"}},
            r"reduce_scatter is 'auto'",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}},
            r"offload_param.device is 'nvme'",
        ),
    ],
)
def test_a_contradiction_names_both_sides(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        resolve({**ZERO2, **settings})


def test_equal_values_are_no_contradiction() -> None:
    same = {
        "train_batch_size": 16, "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 2, "gradient_clipping": 0.5, "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "weight_decay": 0.1, "betas": "auto"}},
        "scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": "auto"}},
    }  # fmt: skip
    found = resolve({**ZERO2, **same})
    assert found.settings["bf16"] == {"enabled": False}, "cast in the forward pass, by us"
    assert "optimizer" not in found.settings
    assert ["micro_batch" in notice for notice in found.notices] == [True]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[1]", "no object"),
        ("{", "not JSON"),
        ('{"zero_optimization": {"stage": 4}}', "stage is 4"),
        ('{"zero_optimization": {"stage": "2"}}', "stage is '2'"),
        ('{"pipeline": {"stages": 2}}', r"pipeline\.stages is 2"),
        ('{"sequence_parallel_size": 2}', "sequence_parallel_size is 2"),
        ('{"quantize_training": {"enabled": true}}', "quantize_training would change"),
        ('{"communication_data_type": "bf16"}', "communication_data_type would change"),
        ('{"zero_optimization": {"zero_quantized_weights": true}}', "zero_quantized_weights would"),
        ('{"zero_optimization": {"zero_hpz_partition_size": 2}}', "zero_hpz_partition_size would"),
        ('{"gradient_cliping": 1.0}', "gradient_cliping: no such setting"),
        ('{"zero_optimization": {"stag": 2}}', r"zero_optimization\.stag: no such setting"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "ds.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=told):
        read_deepspeed(str(path))


def test_what_has_no_effect_is_told_by_name() -> None:
    settings = {
        "activation_checkpointing": {"partition_activations": True}, "aio": {}, "compile": {"enabled": False},
        "monitor_config": {"enabled": True}, "communication_data_type": "fp32", "amp": {"enabled": False},
        "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    }  # fmt: skip
    told = resolve(settings).notices
    assert [sentence.split(" has no effect")[0].split()[-1] for sentence in told] == [
        "activation_checkpointing",
        "monitor_config",
        "zero_optimization.stage3_gather_16bit_weights_on_model_save",
    ]


def test_an_optimizer_of_the_file_is_held_against_ours() -> None:
    facts = dataclasses.replace(FACTS, train=TrainSection(optimizer="lion"))
    resolve_deepspeed({"optimizer": {"type": "Lion"}}, facts, where="ds.json")
    with pytest.raises(
        ConfigError, match=r"optimizer.type is 'AdamW' .* train.optimizer is 'lion'"
    ):
        resolve_deepspeed({"optimizer": {"type": "AdamW"}}, facts, where="ds.json")


def test_a_name_that_is_nearly_one_is_told() -> None:
    with pytest.raises(ConfigError, match="no file 'zero4'") as caught:
        read_deepspeed("zero4")
    assert "did you mean 'zero" in str(caught.value.remedy)
