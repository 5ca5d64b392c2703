"""What a trainable model refuses before any backend hears of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from hone.errors import ConfigError
from hone.trainable.model import TrainableModel
from hone.trainable.settings import LoRAConfig, TrainSFTConfig, resolve_sft_batch_size


def model(**more: Any) -> TrainableModel:
    about: dict[str, Any] = {"name": "a", "project": "p", "base_model": "m", **more}
    return TrainableModel(**about)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "../up"}, "name of a folder"),
        ({"name": "a@1"}, "name of a folder"),
        ({"project": ".hidden"}, "name of a folder"),
        ({"name": "x" * 300}, "name of a folder"),
        ({"base_model": " "}, "base_model is empty"),
        ({"lora_config": {"r": 4}}, "unknown key 'r'"),
        ({"lora_config": {"bias": "all"}}, "bias"),
        ({"lora_config": {"init_weights": "pissa"}}, "init_weights"),
        ({"report_metrics": ["wandb"]}, "report_metrics"),
        ({"_internal_config": {"peft_args": {}}}, "peft_args"),
        ({"_internal_config": {"engine_args": {"gpu_memory_utilisation": 0.7}}}, "gpu_memory_utilisation"),
        ({"_internal_config": {"engine_args": {"gpu_memory_utilization": 70}}}, "share of the GPU"),
        ({"_internal_config": {"init_args": {"token": "x"}}}, "token"),
        ({"_internal_config": {"init_args": {"dtype": "float61"}}}, "float61"),
        ({"_internal_config": {"chat_template": "a", "chat_template_path": "b"}}, "exclude each other"),
        ({"_internal_config": {"chat_template_tool_schema_format": "vllm"}}, "unknown form"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        model(**more)


def test_names_may_be_any_text_that_a_folder_can_have() -> None:
    for name in ('it\'s {a} "test"', "модель 1", "math-tutor-001"):
        assert model(name=name).name == name


def test_an_unregistered_model_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="not registered"):
        asyncio.run(model().train_sft([]))
    with pytest.raises(ConfigError, match="not registered"):
        model().get_inference_name()


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": -1.0},
        {"learning_rate": [1e-3, float("nan")]},
        {"batch_size": 0},
        {"batch_size": "many"},
        {"assistant_turns": "first"},
    ],
)
def test_a_call_is_checked_as_it_is_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrainSFTConfig(**wrong)


def test_defaults() -> None:
    call = TrainSFTConfig()
    assert (call.learning_rate, call.batch_size, call.assistant_turns) == (5e-5, "auto", "all")
    assert resolve_sft_batch_size(call.batch_size) == 2
    assert (LoRAConfig().rank, LoRAConfig().alpha) == (8, 16.0)


def test_the_public_names_load_no_torch() -> None:
    code = (
        "import sys; from hone import LocalBackend, ServerlessBackend, TrainableModel, Trajectory, art; "
        "import hone.art.local, hone.art.serverless.backend, hone.art.utils.sft, hone.art.dev; "
        "assert not {'torch', 'transformers', 'openai'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_art_face_names_what_it_has_not() -> None:
    from hone import art

    with pytest.raises(AttributeError, match="reinforcement learning"):
        art.gather_trajectories  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        art.nothing  # noqa: B018
