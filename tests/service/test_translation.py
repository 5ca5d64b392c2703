"""What a job asks for becomes Hone's configuration, or is refused by the name of its parameter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone.service.translation import Refused, check_config, check_hyperparameters, settle
from hone.trainable.defaults import default_hyperparameters

PLACE = "method.supervised.hyperparameters"


def settled(
    numbers: dict[str, Any] | None = None, config: Any = None, rows: int = 100, **more: Any
) -> Any:
    said = check_hyperparameters(numbers or {}, PLACE)
    return settle(said, check_config(config), place=PLACE, seed=3, rows=rows, **more)


@pytest.mark.parametrize("rows", [10, 57, 2_000, 4_000, 100_000])
def test_auto_is_the_documents_formulas(rows: int) -> None:
    want = default_hyperparameters(rows)
    got = settled({"n_epochs": "auto", "batch_size": "auto"}, rows=rows)
    assert got.hyperparameters == {
        "n_epochs": want.epochs,
        "batch_size": want.batch_size,
        "learning_rate_multiplier": 1.0,
    }
    config = got.resolved.config
    assert config.learning_rate == want.peak_lr
    assert (config.train.schedule, config.train.warmup_ratio) == ("linear", want.warmup_ratio)
    assert config.train.seed == 3


def test_numbers_of_a_user_are_taken_and_told_back() -> None:
    got = settled({"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": 0.3}, rows=24)
    train = got.resolved.config.train
    assert (train.epochs, train.batch_size, train.learning_rate) == (1, 8, 2e-4 * 0.3)
    assert train.warmup_ratio == 0.2  # of 3 steps, not all ten of the formula's
    assert got.hyperparameters["learning_rate_multiplier"] == 0.3


def test_own_settings_go_before_the_operators_and_are_told_back_as_hyperparameters() -> None:
    own = {"train": {"learning_rate": 1e-3, "max_steps": 50}, "tuning": {"lora": {"r": 4}}}
    got = settled(config=own, rows=100, operator={"tuning.lora.r": 64, "compute.threads": 2})
    config = got.resolved.config
    assert (config.tuning.lora.r, config.compute.threads, config.train.max_steps) == (4, 2, 50)
    assert got.hyperparameters == {
        "n_epochs": 1, "batch_size": 2, "learning_rate_multiplier": 5.0,
    }  # fmt: skip
    assert json.loads(json.dumps(got.config)) == got.config


def test_a_multiplier_is_of_the_methods_own_rate() -> None:
    own = {"tuning": {"method": "full"}}
    got = settled({"learning_rate_multiplier": 2}, own)
    assert got.resolved.config.train.learning_rate == 4e-5


@pytest.mark.parametrize(
    ("numbers", "param"),
    [
        ({"n_epochs": 0}, f"{PLACE}.n_epochs"),
        ({"n_epochs": 2.5}, f"{PLACE}.n_epochs"),
        ({"n_epochs": True}, f"{PLACE}.n_epochs"),
        ({"batch_size": 257}, f"{PLACE}.batch_size"),
        ({"learning_rate_multiplier": 0}, f"{PLACE}.learning_rate_multiplier"),
        ({"learning_rate_multiplier": float("inf")}, f"{PLACE}.learning_rate_multiplier"),
        ({"beta": 0.1}, f"{PLACE}.beta"),
    ],
)
def test_hyperparameters_out_of_bounds_are_refused(numbers: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as caught:
        check_hyperparameters(numbers, PLACE)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("config", "param", "says"),
    [
        ({"train": {"lr": 1e-3}}, "train.lr", "did you mean train.learning_rate"),
        ({"train": {"learning_rate": "quick"}}, "train.learning_rate", "allowed: a number"),
        ({"train": {"betas": [0.9, 2]}}, "train.betas", "below 1"),
        ({"output": {"dir": "/etc"}}, "output.dir", "not for a job to say"),
        ({"data": {"template": "/etc/passwd"}}, "data.template", "not for a job to say"),
        ({"data": {"path": "/etc/passwd"}}, "data.path", "not for a job to say"),
        ({"model": {"name": "other/model"}}, "model.name", "not for a job to say"),
        ({"train": {"sample_prompts": "/etc/passwd"}}, "train.sample_prompts", "not for a job"),
        ({"compute": {"deepspeed": "/etc/x.json"}}, "compute.deepspeed", "not for a job to say"),
        ({"tuning": {"lora": {"target_modules": "(a+)+b"}}}, "tuning.lora.target_modules", "list"),
        ({"tuning": 3}, "tuning", "is an object"),
        ({"tuning": {"method": "freeze", "lora": {"r": 0}}}, "tuning.lora.r", "at least 1"),
    ],
)
def test_own_settings_that_are_not_for_a_job_are_refused(
    config: dict[str, Any], param: str, says: str
) -> None:
    with pytest.raises(Refused) as caught:
        settled(config=config)
    assert caught.value.param == f"x_hone.config.{param}"
    assert says in str(caught.value)


@pytest.mark.parametrize("allowed", [["*"], ["data.*", "model.*", "output.*", "compute.*"]])
def test_an_operator_cannot_open_paths_to_jobs(allowed: list[str]) -> None:
    for config in ({"output": {"dir": "x"}}, {"data": {"template": "x"}}, {"model": {"name": "x"}}):
        with pytest.raises(Refused, match="not for a job to say"):
            check_config(config, allowed)


def test_one_thing_said_twice_is_refused() -> None:
    with pytest.raises(Refused, match="say the same") as caught:
        settled({"n_epochs": 2}, {"train": {"epochs": 3}})
    assert caught.value.param == "x_hone.config.train.epochs"
