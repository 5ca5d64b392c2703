"""The way through the questions: order, back, what is given, what is missing, what would be idle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.errors import ConfigError, DataError
from hone.wizard.answers import Answers, read_answers
from hone.wizard.flow import Flow
from hone.wizard.session import Session
from tests.wizard.complete import EXAMPLE, given, place
from tests.wizard.test_dataset import rows

ANSWERS: dict[str, Any] = {
    "backend": "local", "base_model": "m", "project": "p", "name": "n", "teacher": "t",
    "teacher_url": "https://x/v1", "teacher_key_env": "K", "prompts": ["a"], "examples": [EXAMPLE],
    "epochs": "1", "batch_size": "2", "lr": "1e-4", "schedule": "cosine", "warmup_ratio": "0",
    "script": "s.py", "overwrite": "yes",
}  # fmt: skip
CUSTOM = ["hyperparameters", "epochs", "batch_size", "lr", "schedule", "warmup_ratio"]
ORDER = {
    "jsonl": ["scenario", "backend", "data", "base_model", "project", "name", *CUSTOM, "script"],
    "inline": [
        "scenario", "backend", "examples", "base_model", "project", "name", "hyperparameters", "batch_size", "lr",
        "script",
    ],
    "distillation": [
        "scenario", "backend", "base_model", "project", "name", "teacher", "teacher_url", "teacher_key_env",
        "prompts", *CUSTOM, "script",
    ],
}  # fmt: skip


def new(folder: Path, **told: Any) -> Flow:
    flow = Flow(Answers(place(folder)))
    flow.give(told)
    flow.settle(defaults=False)
    return flow


def walk(flow: Flow, answers: dict[str, Any]) -> list[str]:
    asked: list[str] = []
    while (question := flow.open_question()) is not None:
        asked.append(question.key)
        flow.take(question, answers[question.key])
        flow.settle(defaults=False)
    return asked


def answers_for(folder: Path, scenario: str) -> dict[str, Any]:
    data = str(rows(folder / "rows.jsonl"))
    return {**ANSWERS, "scenario": scenario, "data": data, "hyperparameters": "customize"}


@pytest.mark.parametrize("scenario", ORDER)
def test_the_order(tmp_path: Path, scenario: str) -> None:
    flow = new(tmp_path)
    assert walk(flow, answers_for(tmp_path, scenario)) == ORDER[scenario]
    assert flow.answers.text("framework") == "hone"


@pytest.mark.parametrize("scenario", ORDER)
def test_back_to_the_beginning_and_forth_again(tmp_path: Path, scenario: str) -> None:
    flow, answers = new(tmp_path), answers_for(tmp_path, scenario)
    walk(flow, answers)
    before = dict(flow.answers.values)
    for key in reversed(ORDER[scenario]):
        assert flow.back()
        flow.settle(defaults=False)
        question = flow.open_question()
        assert question is not None
        assert question.key == key
    assert not flow.back()
    assert walk(flow, answers) == ORDER[scenario]
    assert flow.answers.values == before


def test_another_scenario_after_going_back_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    flow = new(tmp_path)
    walk(flow, answers_for(tmp_path, "distillation"))
    while flow.back():
        pass
    flow.settle(defaults=False)
    walk(flow, answers_for(tmp_path, "inline"))
    assert not {"teacher", "prompts", "epochs", "data"} & set(flow.answers.values)


def test_what_is_given_is_not_asked(tmp_path: Path) -> None:
    flow = new(tmp_path, **given("inline", backend="local"))
    assert walk(flow, ANSWERS | {"hyperparameters": "defaults"}) == [
        "project",
        "hyperparameters",
        "script",
    ]


def test_a_value_that_is_given_means_customize(tmp_path: Path) -> None:
    flow = new(tmp_path, **given("inline"), lr="3e-5")
    flow.settle(defaults=True)
    assert flow.answers.values["hyperparameters"] == "customize"
    assert flow.answers.number("lr") == 3e-5
    assert flow.settle_idle() == []


def test_an_unknown_answer_has_a_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base_model"):
        new(tmp_path, base_modell="m")


@pytest.mark.parametrize(
    "stray",
    [{"teacher": "t"}, {"epochs": "3"}, {"gpu_memory_utilization": "0.5", "backend": "serverless"}],
)
def test_what_would_be_idle_is_refused(tmp_path: Path, stray: dict[str, str]) -> None:
    flow = new(tmp_path, **given("inline"), **stray)
    flow.settle(defaults=True)
    with pytest.raises(ConfigError, match="no effect"):
        flow.settle_idle()


def test_what_turns_out_idle_after_questions_is_said(tmp_path: Path) -> None:
    flow = new(tmp_path, teacher="t")
    walk(flow, answers_for(tmp_path, "jsonl"))
    assert flow.settle_idle() == ["--teacher has no effect beside the other answers"]


def test_missing_answers_are_named_all_at_once(tmp_path: Path) -> None:
    def missing(**told: Any) -> list[str]:
        return [question.flag for question in new(tmp_path, **told).missing()]

    assert missing() == ["--data", "--base-model", "--name"]
    assert missing(scenario="inline") == ["--example", "--base-model", "--name"]
    assert missing(scenario="distillation", name="n") == ["--base-model", "--teacher", "--prompt"]
    (tmp_path / "sft_train.py").touch()
    assert missing(scenario="inline", base_model="m", name="n") == ["--example", "--force"]


def test_a_script_that_is_there_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "s.py").touch()
    flow = new(tmp_path, **given("inline"), script="s.py")
    flow.settle(defaults=True)
    question = flow.open_question()
    assert question is not None
    assert question.key == "overwrite"
    flow.take(question, "no")
    flow.settle(defaults=True)
    question = flow.open_question()
    assert question is not None
    assert question.key == "script", "asked again, though it was given"
    flow.take(question, "t.py")
    assert flow.open_question() is None


def test_rows_are_validated_when_they_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        new(tmp_path, scenario="jsonl", backend="local", data="nowhere.jsonl")


@pytest.mark.parametrize("scenario", ORDER)
def test_a_state_in_a_file_is_the_flow_itself(tmp_path: Path, scenario: str) -> None:
    session, answers = Session(tmp_path / "state.json"), answers_for(tmp_path, scenario)
    asked: list[str] = []
    while True:
        flow = session.load(place(tmp_path))
        flow.settle(defaults=False)
        question = flow.open_question()
        if question is None:
            break
        asked.append(question.key)
        flow.take(question, answers[question.key])
        session.save(flow)
    assert asked == ORDER[scenario]
    assert flow.asked == asked
    assert flow.answers.rows == 1


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 9}', '{"version": 1, "values": {"x": 1}}', "\x00"]
)
def test_a_damaged_state_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ConfigError, match="state cannot be read"):
        Session(tmp_path / "state.json").load(place(tmp_path))


def test_a_file_of_answers_keeps_text_as_it_was_typed(tmp_path: Path) -> None:
    file = tmp_path / "answers.yaml"
    file.write_text(
        "name: 001\nlr: 1e-4\nepochs: 3\nprompts: [yes, 2024-01-01]\n"
        "examples:\n  - - {role: user, content: a}\n    - {role: assistant, content: '1'}\n"
    )
    told = read_answers(file)
    assert told["name"] == "001"
    assert (told["lr"], told["epochs"], told["prompts"]) == ("1e-4", "3", ["yes", "2024-01-01"])
    assert told["examples"] == [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "1"}]
    ]
