"""A call of training on a trainable model of the service: once, however often its process begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hone.errors import ConfigError
from hone.service.attempt import Attempt
from hone.service.call import train_call
from hone.service.follow import Follower
from hone.service.order import TRAINING_ROWS, CallOrder, Order, Outcome
from hone.service.preparation import Preparation
from hone.trainable.folder import ModelFolder
from tests.folders import chat_rows, model_folder
from tests.service.jobs import BOB, store_of
from tests.service.works import QUICK, Scripted, asked


def order(root: Path, **changes: object) -> CallOrder:
    return dataclasses.replace(
        CallOrder(
            root=str(root / "trainable" / "bob"), project="support", name="agent",
            base_model=str(root / "model"), expected_step=0, learning_rate=1e-3, batch_size=4,
            train_on="all", settings={"lora_config": {"rank": 4}}, compute={"threads": 1, "micro_batch_tokens": 300},
        ),
        **changes,
    )  # fmt: skip


def job_folder(root: Path, name: str, rows: int = 12) -> Path:
    folder = root / "jobs" / f"ftjob-{name}"
    folder.mkdir(parents=True)
    chat_rows(folder / TRAINING_ROWS, rows)
    return folder


def test_a_call_makes_one_step_however_often_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    model_folder(tmp_path / "model")
    first = job_folder(tmp_path, "a")
    done = train_call(order(tmp_path), first)
    assert (done.ended, done.steps, done.step) == ("finished", 3, 1)
    place = ModelFolder(tmp_path / "trainable" / "bob", "support", "agent")
    weights = (place.checkpoint(1) / "adapter_model.safetensors").read_bytes()

    again = train_call(order(tmp_path), first)  # its worker died before it could tell
    assert (again.steps, again.step, place.steps()) == (3, 1, [0, 1])
    assert (place.checkpoint(1) / "adapter_model.safetensors").read_bytes() == weights

    second = job_folder(tmp_path, "b")
    with pytest.raises(ConfigError, match="is at step 1, and the call was meant for step 0"):
        train_call(order(tmp_path), second)
    done = train_call(order(tmp_path, expected_step=1, learning_rate=[1e-3, 0.0, 1e-3]), second)
    assert (done.steps, done.step) == (3, 2)
    assert train_call(order(tmp_path), first).step == 1  # the first one still knows its own

    follower = Follower(second / "run" / "events.jsonl")
    batch = follower.read()
    assert batch.checkpoints == []
    told = [event for event in batch.events if event.type == "metrics"]
    assert [event.data["step"] for event in told if event.data] == [1, 2, 3]
    assert [event.data["learning_rate"] for event in told if event.data] == [1e-3, 0.0, 1e-3]
    assert told[0].data is not None
    assert told[0].data["gradient_step"] == 4
    assert follower.csv().count("\n") == 4


def test_a_list_of_rates_that_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    model_folder(tmp_path / "model")
    with pytest.raises(ConfigError, match="2 entries, and there are 3 batches"):
        train_call(order(tmp_path, learning_rate=[1e-3, 1e-3]), job_folder(tmp_path, "a"))


def test_a_job_of_a_call_becomes_its_order_and_moves_the_model_on(tmp_path: Path) -> None:
    store = store_of(tmp_path, max_running=9)
    model_folder(tmp_path / "model")
    store.register_trainable(BOB, "support", "agent", "tiny")
    body = {
        "project": "support", "name": "agent", "expected_step": 0, "learning_rate": [0.1, 0.2], "batch_size": "auto",
        "call": "12345678", "settings": {"lora_config": {"rank": 2}},
    }  # fmt: skip
    jobs = [asked(store, model="support/agent", body={"x_hone": {"trainable": body}}) for _ in "ab"]
    first = store.claim("w", 60)
    assert first is not None
    assert first.id == jobs[0].id
    assert store.claim("w", 60) is None, "calls of one model come one after another"

    def plan(script) -> int:
        told = Order.read(script.folder).call
        assert told is not None
        assert (told.batch_size, told.learning_rate, told.expected_step) == (2, [0.1, 0.2], 0)
        assert told.settings == {"lora_config": {"rank": 2}}
        assert told.root == str(tmp_path / "trainable" / BOB)
        Outcome("finished", 6, 0.5, step=1).write(script.folder)
        return 0

    done = Attempt(
        store, first, Preparation(store, {"tiny": str(tmp_path / "model")}), Scripted(plan),
        patience=QUICK, should_end=bool,
    ).run()  # fmt: skip
    assert done is not None
    assert (done.status, done.fine_tuned_model) == ("succeeded", None)
    model = store.trainable(BOB, "support", "agent")
    assert (model.step, model.gradient_steps) == (1, 6)
    second = store.claim("w", 60)
    assert second is not None
    assert second.id == jobs[1].id
