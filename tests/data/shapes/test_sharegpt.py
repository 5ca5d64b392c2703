"""ShareGPT rows: speakers, tags, tool calls and their results, and the order of turns."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.conversation import ToolCall
from hone.data.formats import RowFormat
from hone.errors import ConfigError, DataError
from tests.data.rows import read, refusal, said

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def row(*turns: tuple[str, object], **more: object) -> dict[str, object]:
    return {"conversations": [{"from": name, "value": text} for name, text in turns], **more}


@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), system=st.none() | TEXT)
def test_turns(pairs, system):
    form = RowFormat()
    turns = [
        (name, text) for pair in pairs for name, text in zip(("human", "gpt"), pair, strict=True)
    ]
    found = read(row(*turns, system=system), form)
    roles = {"human": "user", "gpt": "assistant"}
    assert said(found) == [
        *([("system", system)] if system else []),
        *((roles[name], text) for name, text in turns),
    ]
    assert form.shape == "sharegpt"
    assert found.remarks == ()


def test_the_systems_turn_goes_before_the_column():
    turns = [("system", "a"), ("human", "q"), ("gpt", "r")]
    assert said(read(row(*turns)))[0] == ("system", "a")
    found = read(row(*turns, system="b"))
    assert (said(found)[0], found.remarks) == (("system", "a"), ("system-twice",))
    assert read(row(*turns, system="a")).remarks == ()
    assert read(row(*turns, system="")).remarks == ()


def test_calls_and_results():
    call = {"name": "f", "arguments": {"a": 1}}
    found = read(
        row(
            ("human", "q"),
            ("function_call", json.dumps(call)),
            ("observation", "r"),
            ("gpt", "s"),
            tools=json.dumps([{"name": "f", "parameters": {}}]),
        )
    )
    assert [one.role for one in found.messages] == ["user", "assistant", "tool", "assistant"]
    assert found.messages[1].tool_calls == (ToolCall("f", {"a": 1}),)
    assert found.messages[1].content == ""
    assert found.tools == ({"type": "function", "function": {"name": "f", "parameters": {}}},)
    assert found.remarks == ("bare-tool",)


@pytest.mark.parametrize("as_text", [True, False])
def test_calls_side_by_side(as_text):
    calls = [{"name": "f", "arguments": '{"a": 1}'}, {"name": "g", "arguments": {}}]
    value = json.dumps(calls) if as_text else calls
    found = read(row(("human", "q"), ("function_call", value)))
    assert found.messages[1].tool_calls == (ToolCall("f", {"a": 1}), ToolCall("g", {}))


def test_one_observation_answers_all_calls_before_it():
    calls = [{"name": "f"}, {"name": "g"}]
    turns = [("human", "q"), ("function_call", calls), ("observation", "r"), ("gpt", "a")]
    assert read(row(*turns)).remarks == ()
    assert "result-without-call" in read(row(turns[0], turns[2], *turns[2:])).remarks
    assert "call-without-result" in read(row(*turns[:2], turns[0], turns[3])).remarks


def test_a_thought_before_a_call_is_kept():
    thought = "<think>\nwhy\n</think>"
    found = read(row(("human", "q"), ("function_call", thought + '\n{"name": "f"}')))
    assert found.messages[1].content == thought
    assert found.messages[1].tool_calls == (ToolCall("f", {}),)


@pytest.mark.parametrize(
    ("value", "pointer", "words"),
    [
        ("f(1)", "", "a function call is JSON"),
        ('{"name": "f", "arguments": ', "", "a function call is JSON"),
        ("[]", "", "a tool call is an object"),
        ([], "", "the list of tool calls is empty"),
        ('{"arguments": {}}', "/name", "no function name"),
        ('[{"name": "f"}, {"name": 1}]', "/1/name", "no function name"),
        ('{"name": "f", "arguments": [1]}', "/arguments", "arguments are an object"),
        ("7", "", "a tool call is an object"),
        (None, "", "text is wanted"),
    ],
)
def test_calls_refused(value, pointer, words):
    told = row(("human", "q"), ("function_call", value))
    assert words in refusal(told, f"/conversations/1/value{pointer}").what


@pytest.mark.parametrize(
    "names",
    [
        ("gpt",),
        ("human", "gpt", "human"),
        ("human", "human", "gpt", "gpt"),
        ("human", "gpt", "system", "gpt"),
        ("gpt", "human"),
        ("human", "gpt", "observation", "gpt", "gpt"),
    ],
)
def test_another_order_is_kept_and_told(names):
    found = read(row(*[(name, "x") for name in names]))
    assert len(found.messages) == len(names)
    assert "turn-order" in found.remarks


def test_weights_of_turns():
    told = row(("human", "q"), ("gpt", "a"), ("human", "q"), ("gpt", "b"))
    told["conversations"][1]["weight"] = 0
    told["conversations"][3]["train"] = True
    assert [one.weight for one in read(told).messages] == [None, 0.0, None, 1.0]
    assert [
        one.weight for one in read({**told, "loss_mask": [False, False, True, True]}).messages
    ] == [
        0.0,
        0.0,
        1.0,
        1.0,
    ]


@pytest.mark.parametrize(
    ("turns", "pointer", "words"),
    [
        ([{"from": "bing", "value": "x"}], "/0/from", "unknown speaker 'bing'"),
        ([{"from": 1, "value": "x"}], "/0/from", "a speaker is text"),
        ([{"from": "gpt"}], "/0", "no 'value'"),
        ([{"from": "gpt", "value": None}], "/0/value", "null"),
        ([{"from": "gpt", "value": "x"}, "y"], "/1", "a turn is an object"),
        ([{"from": "gpt", "value": "x"}, {"role": "user", "content": "y"}], "/1", "no 'from'"),
        (
            [{"from": "gpt", "value": [{"type": "image"}]}],
            "/0/value/0",
            "a part of type 'image'",
        ),
    ],
)
def test_turns_refused(turns, pointer, words):
    error = refusal({"conversations": turns}, f"/conversations{pointer}")
    assert words in error.what


def test_nobody_answers():
    assert "no assistant turn" in refusal(row(("human", "q"))).what


def test_other_keys_of_a_turn_are_told():
    told = row(("human", "q"), ("gpt", "a"))
    told["conversations"][1]["markdown"] = None
    assert read(told).remarks == ("unknown-key:conversations/markdown",)


@pytest.mark.parametrize("suffix", ["", "_tag"])
def test_tags(suffix):
    tags = {f"role{suffix}": "who", f"content{suffix}": "says", f"assistant{suffix}": "bot"}
    told = {"conversations": [{"who": "human", "says": "q"}, {"who": "bot", "says": "a"}]}
    assert said(read(told, tags=tags)) == [("user", "q"), ("assistant", "a")]
    told["conversations"][1]["who"] = "gpt"
    error = refusal(told, "/conversations/1/who", tags=tags)
    assert "unknown speaker 'gpt'" in error.what
    assert "bot" in error.remedy


def test_tags_for_tools_in_the_words_of_others():
    tags = {"observation_tag": "result", "function": "call"}
    told = row(("human", "q"), ("call", '{"name": "f"}'), ("result", "r"), ("gpt", "a"))
    assert [one.role for one in read(told, tags=tags).messages][1:3] == ["assistant", "tool"]


def test_tags_make_sharegpt_of_roles_and_content():
    told = {"conversations": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}]}
    form = RowFormat(tags={"role": "role", "content": "content"})
    assert said(read(told, form)) == [("user", "q"), ("assistant", "a")]
    assert form.shape == "sharegpt"


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"rol": "x"}, "'rol' is no tag"),
        ({"user": "x", "user_tag": "y"}, "names 'user' twice"),
        ({"user": "x", "assistant": "x"}, "to two roles"),
    ],
)
def test_tags_that_cannot_be_meant(tags, words):
    with pytest.raises(ConfigError, match=words) as caught:
        RowFormat(tags=tags)
    assert caught.value.remedy


def test_tags_of_another_shape():
    with pytest.raises(ConfigError, match=r"data\.tags is for rows of shape 'sharegpt'"):
        read({"question": "q", "answer": "a"}, tags={"user": "x"})


def test_one_file_has_one_of_the_two_shapes():
    form = RowFormat()
    read(row(("human", "q"), ("gpt", "a")), form)
    other = {"conversations": [{"role": "user", "content": "q"}]}
    with pytest.raises(DataError, match="no 'from'"):
        read(other, form)
    form = RowFormat("conversations")
    with pytest.raises(DataError, match="has a 'role'; found 'from', 'value'") as caught:
        read(row(("human", "q"), ("gpt", "a")), form)
    assert "sharegpt" in caught.value.remedy
