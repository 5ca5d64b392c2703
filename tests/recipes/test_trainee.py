"""A model that is trained call by call: what is kept, what goes on, and that processes and calls leave no mark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoTokenizer

from hone.config.sections import Config
from hone.errors import ConfigError, DataError, Interrupted, LockedError, NonFiniteError
from hone.recipes import trainee as trainee_module
from hone.recipes.call_steps import Call, Called
from hone.recipes.herald import Herald
from hone.recipes.trainee import open_trainee
from hone.runs.events import Event
from tests.folders import WORDS, model_folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("base") / "model")


class Home:
    """A model's folder, opened and closed around every call."""

    def __init__(self, path: Path, base: Path, **tuning: Any) -> None:
        self.path = path
        self.heard: list[Event] = []
        self.stop_at: int | None = None
        self.tree: dict[str, Any] = {
            "model": {"name": str(base)},
            "tuning": {"method": "lora", "lora": {"r": 4, "alpha": 8.0, **tuning}},
            "data": {"too_long": "drop", "max_length": 64},
            "train": {
                "optimizer": "adamw",
                "betas": [0.9, 0.99],
                "precision": "fp32",
                "seed": 3407,
            },
            "compute": {"micro_batch_tokens": 256, "threads": 1},
        }

    def rows(self, numbers: Sequence[int], *, longer: int = 1) -> Path:
        words = WORDS.split()
        path = self.path.parent / f"rows-{self.path.name}.jsonl"
        with path.open("w") as file:
            for i in numbers:
                ask = f"the {words[i % 3]} {words[7 + i % 3]}" * (longer if i == 99 else 1)
                reply = f"{words[3 + i % 4]} {words[10 + i % 3]}"
                told = [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
                file.write(json.dumps({"messages": told}) + "\n")
        return path

    def call(
        self,
        numbers: Sequence[int],
        rates: Sequence[float] = (1e-2,),
        *,
        batch: int = 2,
        longer: int = 1,
    ) -> Called:
        with self.opened() as trainee:
            return trainee.train(
                Call(self.rows(numbers, longer=longer), batch, tuple(rates), "all"),
                self.told.append,
            )

    def opened(self) -> Any:
        self.told: list[Any] = []
        herald = Herald([self.heard.append])
        return open_trainee(
            self.path,
            "some/base",
            Config.model_validate(self.tree),
            say=herald.say,
            should_stop=self.should_stop,
            attach=herald.attach,
        )

    def should_stop(self) -> Interrupted | None:
        done = sum(event.name == "step" for event in self.heard)
        return Interrupted("stopped") if self.stop_at is not None and done >= self.stop_at else None

    def weights(self, step: int) -> dict[str, torch.Tensor]:
        return load_file(self.path / "checkpoints" / f"{step:04d}" / "adapter_model.safetensors")

    def notices(self) -> list[str]:
        return [event["code"] for event in self.heard if event.name == "notice"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_five_calls_in_one_process_and_in_five_end_in_the_same_bits(
    tmp_path: Path, base: Path
) -> None:
    parts = [range(4), range(4, 8), range(8, 11), range(2, 6), range(12, 16)]
    apart, together = Home(tmp_path / "apart", base), Home(tmp_path / "together", base)
    for step, part in enumerate(parts, start=1):
        assert apart.call(part).step == step
    with together.opened() as trainee:
        for part in parts:
            trainee.train(Call(together.rows(part), 2, (1e-2,), "all"), lambda told: None)
    for step in range(6):
        assert same(apart.weights(step), together.weights(step)), step
    assert not same(apart.weights(4), apart.weights(5))
    about = json.loads((apart.path / "checkpoints/0005/hone.json").read_text())
    assert (about["training_step"], about["gradient_steps"]) == (5, 10)


def test_calls_are_the_parts_of_one_long_call(tmp_path: Path, base: Path) -> None:
    """The optimizer's moments go on over calls: two calls move the weights as one of both does."""
    whole, parts = Home(tmp_path / "whole", base), Home(tmp_path / "parts", base)
    whole.call(range(8), [1e-2, 8e-3, 6e-3, 4e-3])
    parts.call(range(4), [1e-2, 8e-3])
    parts.call(range(4, 8), [6e-3, 4e-3])
    assert same(whole.weights(1), parts.weights(2))


def test_a_call_that_was_broken_off_goes_on(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainee_module, "_LEAST_SAVE_STEPS", 1)
    straight, broken = Home(tmp_path / "straight", base), Home(tmp_path / "broken", base)
    for home in (straight, broken):
        home.call(range(4))
    straight.call(range(12))
    before = broken.weights(1)
    broken.heard.clear()
    broken.stop_at = 3
    with pytest.raises(Interrupted):
        broken.call(range(12))
    assert same(broken.weights(1), before)
    assert not (broken.path / "checkpoints/0002").exists()
    broken.stop_at = None
    done = broken.call(range(12))
    assert broken.told[0]["done"] == 3
    assert broken.told[0]["tokens_done"] > 0
    assert (done.step, done.steps, done.gradient_steps) == (2, 6, 8)
    assert same(broken.weights(2), straight.weights(2))


def test_another_call_after_a_broken_one_begins_at_the_newest_checkpoint(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainee_module, "_LEAST_SAVE_STEPS", 1)
    straight, broken = Home(tmp_path / "straight", base), Home(tmp_path / "broken", base)
    for home in (straight, broken):
        home.call(range(4))
    broken.heard.clear()
    broken.stop_at = 3
    with pytest.raises(Interrupted):
        broken.call(range(12))
    broken.stop_at = None
    straight.call(range(6, 10))
    broken.call(range(6, 10))
    assert same(broken.weights(2), straight.weights(2))


def test_a_fault_at_the_last_moment_loses_nothing(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies when the optimizer's state is kept, and the checkpoint has no name yet."""
    straight, killed = Home(tmp_path / "straight", base), Home(tmp_path / "killed", base)
    straight.call(range(4))
    with killed.opened() as trainee:
        trainee.begin()
    with monkeypatch.context() as patched:
        patched.setattr(
            trainee_module.Trainee,
            "_write",
            lambda *_, **__: (_ for _ in ()).throw(KeyError("died")),
        )
        with pytest.raises(KeyError, match="died"):
            killed.call(range(4))
    killed.heard.clear()
    assert killed.call(range(4)).step == 1
    assert not [event for event in killed.heard if event.name == "step"]
    assert same(killed.weights(1), straight.weights(1))


def test_a_checkpoint_without_its_state_goes_on_with_its_weights_and_says_so(
    tmp_path: Path, base: Path
) -> None:
    home = Home(tmp_path / "home", base)
    home.call(range(4))
    home.call(range(4, 8))
    first = home.weights(1)
    shutil.rmtree(home.path / "checkpoints/0002")
    home.call(range(4, 8), [0.0])  # taken back by one: the state of 0001 is still there
    assert "no-optimizer-state" not in home.notices()
    assert same(home.weights(2), first)
    shutil.rmtree(home.path / "training/checkpoints")
    home.call(range(4, 8), [0.0])
    assert "no-optimizer-state" in home.notices()
    assert same(home.weights(3), first)
    about = json.loads((home.path / "checkpoints/0003/hone.json").read_text())
    assert about["gradient_steps"] == 6


def test_weights_that_were_changed_are_trained_on_without_the_old_moments(
    tmp_path: Path, base: Path
) -> None:
    home, other = Home(tmp_path / "home", base), Home(tmp_path / "other", base)
    home.call(range(4))
    other.call(range(8, 14))
    theirs = other.path / "checkpoints/0001/adapter_model.safetensors"
    shutil.copyfile(theirs, home.path / "checkpoints/0001/adapter_model.safetensors")
    home.call(range(4), [0.0])
    assert "no-optimizer-state" in home.notices()
    assert same(home.weights(2), other.weights(1))


def test_long_rows_are_dropped_and_an_empty_batch_takes_no_rate(tmp_path: Path, base: Path) -> None:
    plain, home = Home(tmp_path / "plain", base), Home(tmp_path / "home", base)
    plain.call([0, 1, 2], [1e-2, 5e-3])
    done = home.call([0, 1, 99, 99, 2, 99], [1e-2, 5e-3, 7.0], longer=30)
    assert (done.steps, done.dropped) == (2, 3)
    assert home.told[0]["counts"] == ((2, 0), (2, 1))
    rates = [event["learning_rate"] for event in home.heard if event.name == "step"]
    assert rates == [1e-2, 5e-3]
    assert same(home.weights(1), plain.weights(1))


def test_nothing_left_writes_nothing(tmp_path: Path, base: Path) -> None:
    home = Home(tmp_path / "home", base)
    done = home.call([99, 99], longer=30)
    assert (done.step, done.steps) == (0, 0)
    assert "nothing-left" in home.notices()
    assert not (home.path / "checkpoints/0001").exists()


def test_a_checkpoint_is_an_adapter_that_plain_peft_loads(tmp_path: Path, base: Path) -> None:
    home = Home(tmp_path / "home", base)
    home.call(range(4))
    folder = home.path / "checkpoints/0001"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/base"
    config["base_model_name_or_path"] = str(base)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, PeftModel)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert any(w.abs().sum() > 0 for name, w in home.weights(1).items() if "lora_B" in name)
    assert all(w.abs().sum() == 0 for name, w in home.weights(0).items() if "lora_B" in name)


def test_another_adapter_or_base_under_the_same_name_is_refused(tmp_path: Path, base: Path) -> None:
    Home(tmp_path / "home", base).call(range(2))
    with pytest.raises(ConfigError, match="another adapter"):
        Home(tmp_path / "home", base, r=2).call(range(2))
    other = model_folder(tmp_path / "other", seed=5)
    with pytest.raises(ConfigError, match="another base model"):
        Home(tmp_path / "home", other).call(range(2))


def test_a_model_that_is_open_is_locked(tmp_path: Path, base: Path) -> None:
    home = Home(tmp_path / "home", base)
    with home.opened(), pytest.raises(LockedError), home.opened():
        pass


def test_a_bad_row_is_named_and_changes_nothing(tmp_path: Path, base: Path) -> None:
    home = Home(tmp_path / "home", base)
    rows = home.rows(range(2))
    rows.write_text(rows.read_text() + '{"messages": [{"role": "bot", "content": "x"}]}\n')
    with home.opened() as trainee, pytest.raises(DataError) as caught:
        trainee.train(Call(rows, 2, (1e-2,), "all"), lambda told: None)
    assert "trajectories:3" in str(caught.value.where)
    assert not (home.path / "checkpoints/0001").exists()


def test_a_call_after_one_that_failed_is_as_if_it_had_not_been(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, straight = Home(tmp_path / "home", base), Home(tmp_path / "straight", base)
    straight.call(range(4))
    with home.opened() as trainee:
        first = Call(home.rows(range(8, 12)), 2, (1e30,), "all")
        with pytest.raises(NonFiniteError):
            trainee.train(first, lambda told: None)
        trainee.train(Call(home.rows(range(4)), 2, (1e-2,), "all"), lambda told: None)
    assert same(home.weights(1), straight.weights(1))
