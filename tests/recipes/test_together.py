"""What several ranks are refused, and how they hold a model: before anything is loaded, where that is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.config.layers import Resolved, resolve
from hone.errors import ConfigError, EnvironmentFault
from hone.recipes.holding import asked_strategy, refuse_in_parts


def resolved(*words: str) -> Resolved:
    base = ["model.name=m", "data.path=rows.jsonl", "output.dir=out"]
    return resolve(overrides=[*base, *words], environment={})


@pytest.mark.parametrize(
    ("words", "told", "remedy"),
    [
        (["compute.strategy=fsdp", "train.optimizer=muon"], "optimizer=muon looks at whole", "adamw or lion"),
        (["compute.deepspeed=zero2", "train.optimizer=adafactor"], "under zero2 a rank holds parts", "ddp"),
        (["compute.strategy=fsdp", "train.optimizer=adamw_8bit"], "adamw_8bit", "adamw or lion"),
        (["compute.strategy=fsdp", "train.sample_steps=5", "train.sample_prompts=[a]"], "train.sample_steps needs", "ddp"),
        (["compute.deepspeed=zero3", "tuning.method=qlora"], "floating-point numbers only", "strategy=fsdp"),
    ],
)  # fmt: skip
def test_what_needs_whole_weights_is_refused_by_name(
    words: list[str], told: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolved(*words).config
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    with pytest.raises(ConfigError, match=told) as caught:
        refuse_in_parts(config, asked_strategy(config.compute, 2))
    assert remedy in str(caught.value.remedy)


def test_deepspeed_that_is_not_there_is_missed_before_anything_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EnvironmentFault, match="deepspeed, which is not installed"):
        refuse_in_parts(resolved("compute.deepspeed=zero2").config, "zero2")
    refuse_in_parts(resolved("compute.strategy=fsdp").config, "fsdp")


@pytest.mark.parametrize(
    ("words", "world", "name"),
    [
        ([], 1, "alone"),
        ([], 2, None),
        (["compute.strategy=ddp"], 2, "ddp"),
        (["compute.strategy=fsdp"], 1, "fsdp"),
        (["compute.deepspeed=zero3-offload"], 2, "zero3"),
    ],
)
def test_the_strategy_that_is_asked_for(words: list[str], world: int, name: str | None) -> None:
    config = resolved(*words).config
    assert asked_strategy(config.compute, world) == name
    if name in (None, "alone", "ddp"):
        refuse_in_parts(resolved(*words, "train.optimizer=muon").config, name)


def test_stage_0_is_every_rank_holding_everything(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 0}}))
    config = resolved(f"compute.deepspeed={tmp_path / 'ds.json'}").config
    assert asked_strategy(config.compute, 2) == "ddp"
