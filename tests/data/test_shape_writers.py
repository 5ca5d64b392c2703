"""Shape writers: what both shapes can say comes back the same; what one cannot is refused, or left out and told."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hone.data.conversation import Conversation, Message, ToolCall
from hone.data.example import Origin
from hone.data.formats import SHAPES, RowFormat
from hone.data.reader import Row
from hone.data.shape_writers import WRITERS, write_row
from hone.errors import ConfigError, DataError
from tests.data.mixed_rows import anything

ORIGIN = Origin("rows.jsonl", 1)
READABLE = sorted(set(WRITERS) & set(SHAPES) - {"text"})
U, A, S = Message("user", "hi"), Message("assistant", "ho"), Message("system", "be brief")
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = ToolCall("weather", {"city": "Århus", "days": 2}, "c1")
ASKED = Message("assistant", "", tool_calls=(CALL,))
TOLD = Message("tool", "rain", tool_call_id="c1", name="weather")

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=5,
)
weights = st.none() | st.sampled_from([0.0, 0.25, 1.0])
calls = st.builds(
    ToolCall,
    anything.filter(bool),
    st.dictionaries(anything, json_values, max_size=3),
    st.none() | anything,
)
answers = st.builds(
    Message,
    st.just("assistant"),
    anything,
    st.none() | anything,
    st.lists(calls, max_size=2).map(tuple),
    name=st.none() | anything,
    weight=weights,
)
others = st.builds(
    Message,
    st.sampled_from(["system", "developer", "user", "tool"]),
    anything,
    tool_call_id=st.none() | anything,
    name=st.none() | anything,
    weight=st.sampled_from([None, 0.0]),
)
tools = st.lists(st.just(WEATHER), max_size=1).map(tuple)
conversations = st.builds(
    lambda before, answer, after, known: Conversation((*before, answer, *after), ORIGIN, known),
    st.lists(others | answers, max_size=4),
    answers,
    st.lists(others | answers, max_size=3),
    tools,
)
plain = st.builds(Message, st.just("user"), anything)
replies = st.builds(Message, st.just("assistant"), anything)
simple = st.builds(
    lambda system, pairs: Conversation(
        (
            *([] if system is None else [Message("system", system)]),
            *(one for pair in pairs for one in pair),
        ),
        ORIGIN,
    ),
    st.none() | anything,
    st.lists(st.tuples(plain, replies), min_size=1, max_size=3),
)


def talk(*messages: Message, known=()) -> Conversation:
    return Conversation(messages, ORIGIN, known)


def written(said: object, shape: str, *, lossy: bool = False):
    return write_row(said, shape, lossy=lossy, where="rows.jsonl:1")


def read(row, shape: str) -> Conversation:
    through = json.loads(json.dumps(row, ensure_ascii=False))
    return RowFormat(shape).read(Row(through, ORIGIN))


@given(conversations)
def test_messages_say_everything(said) -> None:
    row, left_out = written(said, "messages")
    assert left_out == []
    assert read(row, "messages") == said


@given(conversations)
def test_prompt_and_completion_say_all_but_an_answer_first(said) -> None:
    if said.messages[0].role == "assistant" and said.messages[0].weight != 0:
        with pytest.raises(DataError, match="assistant begins"):
            written(said, "prompt-completion")
        return
    assume(said.messages[0].role != "assistant")
    row, left_out = written(said, "prompt-completion")
    assert left_out == []
    assert read(row, "prompt-completion") == said


@given(simple, st.sampled_from(READABLE), st.sampled_from(READABLE))
def test_there_and_back(said, first, second) -> None:
    if "turns" in (first, second) and len(said.messages) > 3:
        with pytest.raises(DataError, match="more than one exchange"):
            written(said, "turns")
        return
    if "alpaca" in (first, second) and said.messages[0] == Message("system", ""):
        with pytest.raises(DataError, match="empty system"):
            written(said, "alpaca")
        return
    row = written(said, first)[0]
    again = written(read(row, first), second)[0]
    assert written(read(again, second), first)[0] == row
    assert read(again, second) == said


@given(conversations, st.sampled_from(sorted(WRITERS)), st.booleans())
def test_said_or_refused_by_name_and_never_left_out_unasked(said, shape, lossy) -> None:
    fault: DataError | None = None
    try:
        row, left_out = written(said, shape, lossy=lossy)
    except DataError as caught:
        fault = caught
    if fault is not None:
        assert repr(shape) in fault.what
        assert fault.where
        assert fault.remedy
        return
    json.dumps(row)
    if not lossy:
        assert [one for one in left_out if "the order says the same" not in one] == []
    if shape in READABLE:
        again = read(row, shape)
        assert left_out or again == said


def test_literal_rows() -> None:
    multi = talk(S, U, A, Message("user", "and?"), Message("assistant", "so"))
    assert written(multi, "alpaca")[0] == {
        "instruction": "and?",
        "input": "",
        "output": "so",
        "system": "be brief",
        "history": [["hi", "ho"]],
    }
    assert written(multi, "conversations")[0] == {
        "system": "be brief",
        "conversations": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "ho"},
            {"role": "user", "content": "and?"},
            {"role": "assistant", "content": "so"},
        ],
    }
    assert written(multi, "sharegpt")[0] == {
        "conversations": [
            {"from": "human", "value": "hi"},
            {"from": "gpt", "value": "ho"},
            {"from": "human", "value": "and?"},
            {"from": "gpt", "value": "so"},
        ],
        "system": "be brief",
    }
    assert written(talk(S, U, A), "turns")[0] == {
        "system": "be brief",
        "user": "hi",
        "assistant": "ho",
    }
    assert written(talk(S, U, A), "prompt-completion")[0] == {
        "system": "be brief",
        "prompt": "hi",
        "completion": "ho",
    }


def test_tool_calls_as_sharegpt() -> None:
    said = talk(U, ASKED, TOLD, A, known=(WEATHER,))
    row, left_out = written(said, "sharegpt")
    assert [turn["from"] for turn in row["conversations"]] == [
        "human",
        "function_call",
        "observation",
        "gpt",
    ]
    assert row["conversations"][1]["value"] == (
        '{"name": "weather", "arguments": {"city": "Århus", "days": 2}}'
    )
    assert json.loads(row["tools"]) == [WEATHER]
    assert left_out == ["ids of tool calls left out: the order says the same"]
    both = Message("assistant", "", tool_calls=(CALL, ToolCall("weather", {}, "c2")))
    second = Message("tool", "sun", tool_call_id="c2")
    row = written(talk(U, both, TOLD, second, A), "sharegpt")[0]
    assert len(json.loads(row["conversations"][1]["value"])) == 2
    with pytest.raises(DataError, match="which call"):
        written(talk(U, both, second, TOLD, A), "sharegpt")


@pytest.mark.parametrize(
    ("said", "shape", "what"),
    [
        (talk(U, A, U, A), "turns", "more than one exchange"),
        (talk(U, A, known=(WEATHER,)), "alpaca", "tools"),
        (talk(U, Message("assistant", "a", weight=0.5)), "sharegpt", "weights"),
        (talk(U, Message("assistant", "a", "because")), "turns", "reasoning"),
        (talk(Message("user", "a", name="Ann"), A), "alpaca", "names of speakers"),
        (talk(Message("developer", "d"), U, A), "turns", "'developer'"),
        (talk(U, A, U), "conversations", None),
        (talk(U, A, U), "sharegpt", "after the last answer"),
        (talk(U, A), "text", "who speaks"),
        (
            talk(U, Message("assistant", "wait", tool_calls=(CALL,)), TOLD, A),
            "sharegpt",
            "text beside",
        ),
    ],
)
def test_refused_or_left_out(said, shape, what) -> None:
    if what is None:
        assert written(said, shape)[1] == []
        return
    with pytest.raises(DataError, match=what) as caught:
        written(said, shape)
    assert "--lossy" in str(caught.value.remedy)
    assert any(what in one for one in written(said, shape, lossy=True)[1])


@pytest.mark.parametrize(
    ("said", "shape", "what"),
    [
        (talk(U, ASKED, TOLD, A), "turns", "tool calls"),
        (talk(U, ASKED, TOLD, A), "text", "tool calls"),
        (talk(A, U, A), "prompt-completion", "assistant begins"),
        (talk(A, U, A), "sharegpt", "alternate"),
        (talk(U, U, A), "alpaca", "alternate"),
        (talk(U, S, A), "conversations", "not the first"),
        (talk(U, A, Message("assistant", "more")), "turns", "alternate"),
    ],
)
def test_what_no_leaving_out_mends(said, shape, what) -> None:
    with pytest.raises(DataError, match=what):
        written(said, shape, lossy=True)


def test_the_first_exchange_stays_where_one_fits() -> None:
    row = written(talk(S, U, A, Message("user", "b"), A), "turns", lossy=True)[0]
    assert row == {"system": "be brief", "user": "hi", "assistant": "ho"}


def test_plain_text_and_unknown_shapes() -> None:
    class Document:
        text = "once upon a time"

    assert written(Document(), "text") == ({"text": "once upon a time"}, [])
    with pytest.raises(DataError, match="no turns"):
        written(Document(), "messages")
    with pytest.raises(DataError, match="token ids"):
        written(object(), "text")
    with pytest.raises(ConfigError, match="mesages") as caught:
        written(talk(U, A), "mesages")
    assert "'messages'" in str(caught.value.remedy)
