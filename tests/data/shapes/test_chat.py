"""Rows that list messages of role and content: with a system column, and as a log of requests."""

from __future__ import annotations

import pytest

from hone.data.conversation import ToolCall
from hone.data.formats import RowFormat
from tests.data.rows import A, S, U, read, refusal, said

TOOL = {"type": "function", "function": {"name": "f"}}


def test_conversations_with_a_system_column():
    form = RowFormat()
    found = read({"system": "be", "conversations": [U, A, U, A]}, form)
    assert form.shape == "conversations"
    assert said(found) == [("system", "be"), *[("user", "hi"), ("assistant", "ho")] * 2]
    assert read({"system": None, "conversations": [U, A]}).messages[0].role == "user"
    twice = read({"system": "other", "conversations": [S, U, A]})
    assert (said(twice)[0], twice.remarks) == (("system", "be"), ("system-twice",))
    assert refusal(
        {"conversations": [U, {"role": "assistent", "content": ""}]}, "/conversations/1/role"
    )


def test_messages_with_a_system_column():
    assert said(read({"system": "be", "messages": [U, A]}))[0] == ("system", "be")


@pytest.mark.parametrize("listed", [[], None, "x", {}, [1]])
def test_conversations_refused(listed):
    assert refusal({"conversations": listed}, "/conversations" + ("/0" if listed == [1] else ""))


def test_turns_of_unknown_keys():
    error = refusal({"conversations": [{"speaker": "a", "text": "b"}]}, "/conversations/0")
    assert "data.tags" in error.remedy


REPLIES = {
    "text": "ho",
    "parts": [{"type": "text", "text": "ho"}],
    "message": A,
    "message without role": {"content": "ho"},
    "choice": {"index": 0, "message": A, "finish_reason": "stop"},
    "response": {"choices": [{"message": A, "finish_reason": "stop"}]},
}


@pytest.mark.parametrize("name", REPLIES)
def test_logs(name):
    form = RowFormat()
    found = read({"input": {"messages": [S, U], "tools": [TOOL]}, "output": REPLIES[name]}, form)
    assert form.shape == "log"
    assert said(found) == [("system", "be"), ("user", "hi"), ("assistant", "ho")]
    assert found.tools == (TOOL,)
    assert found.remarks == ()


def test_a_logged_reply_is_learned_and_its_request_is_context():
    found = read({"input": {"messages": [U, A, U]}, "output": "ho"})
    assert [one.weight for one in found.messages] == [None, 0.0, None, None]
    asked = read({"input": {"messages": [U, {**A, "weight": 1}, U]}, "output": "ho"})
    assert asked.messages[1].weight == 1.0
    masked = read(
        {"input": {"messages": [U, A, U]}, "output": "ho", "loss_mask": [False, True] * 2}
    )
    assert [one.weight for one in masked.messages] == [0.0, 1.0, 0.0, 1.0]


def test_a_log_without_output_is_its_messages():
    found = read({"input": {"messages": [U, A, U, A]}})
    assert [one.weight for one in found.messages] == [None] * 4
    assert said(found) == said(read({"messages": [U, A, U, A]}))
    error = refusal({"input": {"messages": [U, A, U]}})
    assert "no 'output'" in error.what
    assert "the user's" in error.what


def test_a_logged_call():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    reply = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"message": reply, "finish_reason": "tool_calls"}
    found = read({"input": {"messages": [U]}, "output": choice, "tools": [TOOL]})
    assert found.messages[-1].tool_calls == (ToolCall("f", {}, "c"),)
    assert found.tools == (TOOL,)
    assert found.remarks == ()


def test_what_a_log_says_beside():
    choice = {"message": A, "finish_reason": "length"}
    asked = {"messages": [U], "model": "m", "parallel_tool_calls": True}
    found = read({"input": asked, "output": choice})
    assert found.remarks == ("unknown-key:input/model", "finish-reason:length")
    both = {"input": {"messages": [U], "tools": [TOOL]}, "output": "ho", "tools": [TOOL]}
    assert read(both).tools == (TOOL,)
    assert refusal({**both, "tools": [{"name": "g"}]}, "/input/tools")


@pytest.mark.parametrize(
    ("output", "pointer", "words"),
    [
        (7, "", "an output is text, a message or a choice"),
        ({}, "", "no 'role'"),
        (U, "/role", "an output is the assistant's"),
        ({"choices": []}, "/choices", "found 0"),
        ({"choices": [{"message": A}] * 2}, "/choices", "found 2"),
        ({"message": {"role": "assistant"}}, "/message/content", "missing"),
        ({"choices": [{"message": {"content": 1}}]}, "/choices/0/message/content", "number 1"),
    ],
)
def test_outputs_refused(output, pointer, words):
    assert (
        words in refusal({"input": {"messages": [U]}, "output": output}, f"/output{pointer}").what
    )


@pytest.mark.parametrize("asked", ["x", {}, {"message": [U]}, None, [U]])
def test_an_input_that_is_no_request(asked):
    assert (
        "the input is a request"
        in refusal({"input": asked, "output": "x"}, "/input", name="log").what
    )


def test_requests_refused_where_they_stand():
    assert refusal(
        {"input": {"messages": [{"role": "x", "content": ""}]}}, "/input/messages/0/role"
    )
    assert refusal({"input": {"messages": []}}, "/input/messages")
    assert refusal({"input": {"messages": [U, A], "tools": 3}}, "/input/tools")
