"""Trajectories: dictionaries and OpenAI's objects alike, and what becomes a row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone.errors import DataError
from hone.trainable.trajectory import Trajectory, row_of

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}


class Said:
    """What OpenAI's message objects offer."""

    def __init__(self, **told: Any) -> None:
        self.told = told

    def model_dump(self, *, exclude_none: bool) -> dict[str, Any]:
        return {k: v for k, v in self.told.items() if not (exclude_none and v is None)}


class Choice:
    def __init__(self, **told: Any) -> None:
        self.finish_reason = "stop"
        self.message = Said(role="assistant", **told)


def test_a_choice_is_the_assistants_message() -> None:
    one = Trajectory(
        messages_and_choices=[
            {"role": "user", "content": "x"},
            Choice(content=None, tool_calls=[CALL], refusal=None),
            {"role": "tool", "content": None, "tool_call_id": "c1"},
            Choice(content="done"),
        ]
    )
    assert one.messages() == [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "", "tool_call_id": "c1"},
        {"role": "assistant", "content": "done"},
    ]
    assert json.loads(row_of(one, "trajectory 1", last_only=True))["messages"] == one.messages()


def test_openais_own_choice_too() -> None:
    chat = pytest.importorskip("openai.types.chat.chat_completion")
    message = {"role": "assistant", "content": "hello"}
    choice = chat.Choice.model_validate({"index": 0, "finish_reason": "stop", "message": message})
    (found,) = Trajectory(messages_and_choices=[choice]).messages()
    assert (found["role"], found["content"]) == ("assistant", "hello")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"messages_and_choices": ["text"]}, "a message or an OpenAI Choice"),
        ({"additional_histories": [1]}, "additional_histories"),
        ({"tools": [print]}, "is a function"),
        ({"tools": [{"name": {1}}]}, "JSON"),
    ],
)
def test_what_cannot_be_a_row_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        row_of(Trajectory(**more), "trajectory 7", last_only=False)


def test_tools_in_the_order_of_a_server() -> None:
    tool = {"parameters": {"type": "object"}, "strict": True, "name": "look", "description": "d"}
    one = Trajectory(messages_and_choices=[{"role": "assistant", "content": "y"}], tools=[tool])
    (plain,) = json.loads(row_of(one, "t", last_only=False))["tools"]
    (served,) = json.loads(row_of(one, "t", last_only=False, tool_schema="vllm_openai"))["tools"]
    assert list(plain) == ["parameters", "strict", "name", "description"]
    assert list(served["function"]) == ["name", "description", "parameters", "strict"]
