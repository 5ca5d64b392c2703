"""Known shapes of a row: what is understood, and what is refused with its place and a hint."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.conversation import Conversation, Message, ToolCall
from hone.data.example import Origin
from hone.data.formats import RowFormat
from hone.data.reader import Row
from hone.errors import ConfigError, DataError

U = {"role": "user", "content": "hi"}
A = {"role": "assistant", "content": "ho"}


def read(value, form: RowFormat | None = None, line: int = 1) -> Conversation:
    return (form or RowFormat()).read(Row(value, Origin("chat.jsonl", line)))


def refusal(value, **how) -> DataError:
    with pytest.raises(DataError) as caught:
        read(value, **how)
    error = caught.value
    assert error.where.startswith("chat.jsonl:1")
    assert error.remedy
    return error


def test_messages():
    conversation = read({"messages": [{"role": "system", "content": "s"}, U, A]})
    assert conversation.messages == (
        Message("system", "s"),
        Message("user", "hi"),
        Message("assistant", "ho"),
    )
    assert conversation.remarks == ()


def test_prompt_and_completion_as_text_and_as_messages():
    assert read({"prompt": "hi", "completion": "ho"}).messages == (
        Message("user", "hi"),
        Message("assistant", "ho"),
    )
    both = read({"prompt": [U, A, U], "completion": [A, {"role": "user", "content": "more"}, A]})
    assert [m.weight for m in both.messages if m.role == "assistant"] == [0.0, None, None]
    mixed = read(
        {"prompt": [{"role": "system", "content": "s"}, U], "completion": "ho", "tools": []}
    )
    assert [m.role for m in mixed.messages] == ["system", "user", "assistant"]


def test_turns():
    assert read({"system": "s", "user": "hi", "assistant": "ho"}).messages == (
        Message("system", "s"),
        Message("user", "hi"),
        Message("assistant", "ho"),
    )
    assert len(read({"user": "hi", "assistant": "ho", "system": None}).messages) == 2


def test_columns_rename_theirs_to_ours():
    form = RowFormat(columns={"user": "question", "assistant": "answer"})
    found = read({"question": "q", "answer": "a", "user": "other"}, form)
    assert form.shape == "turns"
    assert found.messages == (Message("user", "q"), Message("assistant", "a"))
    assert found.remarks == ("unknown-key:user",)
    other = RowFormat(columns={"prompt": "question", "completion": "answer"})
    assert read({"question": "q", "answer": "a"}, other).messages == found.messages
    assert other.shape == "prompt-completion"


def test_columns_that_cannot_be_meant():
    with pytest.raises(ConfigError, match="'usr' is not a column of ours") as caught:
        RowFormat(columns={"usr": "question"})
    assert "did you mean 'user'" in caught.value.remedy
    error = refusal(
        {"questions": "q", "answer": "a"},
        form=RowFormat(columns={"user": "question", "assistant": "answer"}),
    )
    assert "no column 'question'" in error.what
    assert "did you mean 'questions'" in error.remedy


def test_columns_of_another_shape():
    with pytest.raises(
        ConfigError, match="names 'user', which rows of shape 'messages' do not have"
    ):
        read({"messages": [U, A], "q": "x"}, RowFormat("messages", {"user": "q"}))


def test_one_shape_for_all_rows():
    form = RowFormat()
    read({"user": "hi", "assistant": "ho"}, form)
    with pytest.raises(DataError) as caught:
        read({"user": "hi", "assistent": "ho"}, form, line=7)
    assert caught.value.where == "chat.jsonl:7"
    assert "found 'user', 'assistent'" in caught.value.what
    assert "did you mean 'assistant' by 'assistent'?" in caught.value.remedy


def test_a_shape_that_is_asked_for():
    form = RowFormat("turns")
    assert read({"messages": [U, A], "user": "hi", "assistant": "ho"}, form).remarks == (
        "unknown-key:messages",
    )
    assert refusal({"prompt": "a", "completion": "b"}, form=RowFormat("messages")).what.startswith(
        "the row has no 'messages'"
    )


def test_unknown_shapes_get_the_nearest_name():
    error = refusal({"mesages": [U, A]})
    assert "did you mean 'messages' by 'mesages'?" in error.remedy
    assert "data.columns" in refusal({"question": "q", "reply": "a"}).remedy
    assert "no keys" in refusal({}).what


def test_unknown_keys_of_a_row_are_remarked():
    found = read({"messages": [U, A], "id": 7, "parallel_tool_calls": False})
    assert found.remarks == ("unknown-key:id",)


CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "f", "arguments": '{"b": 1, "a": [1.0, "x"]}'},
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "ok"}


def test_tool_calls():
    found = read(
        {"messages": [U, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT, A]}
    )
    (call,) = found.messages[1].tool_calls
    assert call == ToolCall("f", {"b": 1, "a": [1.0, "x"]}, "c1")
    assert list(call.arguments) == ["b", "a"]
    assert found.messages[1].as_template() == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "f", "arguments": {"b": 1, "a": [1.0, "x"]}},
            }
        ],
    }
    assert found.messages[2].as_template() == {
        "role": "tool",
        "content": "ok",
        "tool_call_id": "c1",
    }
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("not json", "not json"),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        ('{"a": NaN}', '{"a": NaN}'),
        ("[1]", "[1]"),
        ('"x"', '"x"'),
        ('{"a": "\\ud800"}', '{"a": "\\ud800"}'),
    ],
)
def test_arguments_that_are_no_object_stay_text(arguments, meant):
    call = {"function": {"name": "f", "arguments": arguments}}
    found = read({"messages": [U, {"role": "assistant", "tool_calls": [call]}]})
    assert found.messages[1].tool_calls[0].arguments == meant
    assert found.remarks == ("arguments-not-json",)


def test_no_arguments_is_an_empty_object():
    for arguments in (None, "", {}, "{}"):
        call = {"function": {"name": "f", "arguments": arguments}}
        found = read({"messages": [U, {"role": "assistant", "tool_calls": [call]}]})
        assert found.messages[1].tool_calls[0].arguments == {}


def test_calls_and_results_that_do_not_fit_are_remarked():
    calling = {"role": "assistant", "tool_calls": [CALL]}
    assert (
        "duplicate-call-id" in read({"messages": [U, calling, RESULT, calling, RESULT, A]}).remarks
    )
    assert "result-without-call" in read({"messages": [U, RESULT, A]}).remarks
    second = {"role": "assistant", "tool_calls": [{**CALL, "id": "c2"}]}
    assert "call-without-result" in read({"messages": [U, calling, RESULT, second, U, A]}).remarks


def test_tools():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    assert read({"messages": [U, A], "tools": [tool]}).tools == (tool,)
    assert read({"messages": [U, A], "tools": None}).tools == ()
    bare = read({"messages": [U, A], "tools": [{"name": "f"}]})
    assert bare.tools == ({"type": "function", "function": {"name": "f"}},)
    assert bare.remarks == ("bare-tool",)
    assert read({"messages": [U, A], "tools": json.dumps([tool])}).tools == (tool,)
    assert read({"messages": [U, A], "functions": [{"name": "f"}]}).tools == bare.tools
    for empty in ("", " ", "[]", "null"):
        assert read({"messages": [U, A], "tools": empty}).tools == ()
    for bad in ("[", "{}", {}, [1], [{"type": "function"}], [{"function": {"name": 1}}]):
        assert "/tools" in refusal({"messages": [U, A], "tools": bad}).where


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_under_any_of_its_names(key):
    (_, reply) = read({"messages": [U, {**A, key: "why"}]}).messages
    assert reply.reasoning == "why"
    assert reply.as_template()["reasoning_content"] == reply.as_template()["thinking"] == "why"


def test_weights():
    found = read(
        {"messages": [U, {**A, "weight": 0}, U, {**A, "weight": 0.25}, U, {**A, "weight": None}]}
    )
    assert [m.weight for m in found.messages[1::2]] == [0.0, 0.25, None]


def test_content_in_parts():
    parts = [{"type": "text", "text": "a"}, "b", {"type": "text", "text": "c"}]
    assert read({"messages": [{"role": "user", "content": parts}, A]}).messages[0].content == "abc"
    assert read({"user": parts, "assistant": "x"}).messages[0].content == "abc"


def test_openai_replies_as_they_come():
    reply = {
        **A,
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert read({"messages": [U, reply]}).remarks == ("unknown-key:messages/annotations",)
    refused = {"role": "assistant", "content": None, "refusal": "No."}
    found = read({"messages": [U, refused]})
    assert (found.messages[1].content, found.remarks) == ("No.", ("refusal-as-content",))


def test_an_empty_reply_is_remarked():
    assert read({"messages": [U, {"role": "assistant", "content": ""}]}).remarks == (
        "empty-assistant",
    )


BAD_MESSAGES = {
    "unknown role": (
        [{"role": "asistant", "content": "x"}],
        "/messages/0/role",
        "did you mean 'assistant'",
    ),
    "their role": ([{"role": "human", "content": "x"}], "/messages/0/role", "did you mean 'user'"),
    "role is a number": ([{"role": 1, "content": "x"}], "/messages/0/role", ""),
    "no role": ([{"rol": "user", "content": "x"}], "/messages/0", "did you mean 'rol'"),
    "number for text": ([U, {"role": "assistant", "content": 42}], "/messages/1/content", "quotes"),
    "truth for text": (
        [U, {"role": "assistant", "content": True}],
        "/messages/1/content",
        "quotes",
    ),
    "object for text": ([U, {"role": "assistant", "content": {"a": 1}}], "/messages/1/content", ""),
    "null content": ([U, {"role": "assistant", "content": None}], "/messages/1/content", ""),
    "no content": ([U, {"role": "assistant"}], "/messages/1/content", ""),
    "null content, no calls": (
        [U, {"role": "assistant", "content": None, "tool_calls": []}],
        "/messages/1/content",
        "",
    ),
    "null content of a user": ([{"role": "user", "content": None}, A], "/messages/0/content", ""),
    "image": (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, A],
        "/messages/0/content/0",
        "part",
    ),
    "audio": (
        [{"role": "user", "content": [{"type": "input_audio"}]}, A],
        "/messages/0/content/0",
        "part",
    ),
    "part without text": (
        [{"role": "user", "content": [{"type": "text"}]}, A],
        "/messages/0/content/0/text",
        "",
    ),
    "unknown key": ([U, {**A, "wieght": 0}], "/messages/1", "did you mean 'weight'"),
    "calls in both forms": (
        [U, {**A, "function_call": {"name": "f"}, "tool_calls": [CALL]}],
        "/messages/1/function_call",
        "tool_calls",
    ),
    "old call without a name": (
        [U, {**A, "function_call": {"arguments": "{}"}}],
        "/messages/1/function_call/name",
        "name",
    ),
    "old call of a user": (
        [{**U, "function_call": {"name": "f"}}, A],
        "/messages/0/function_call",
        "assistant",
    ),
    "train is a number": ([U, {**A, "train": 1}], "/messages/1/train", "true, false"),
    "train and no weight": (
        [U, {**A, "train": True, "weight": 0}],
        "/messages/1/train",
        "keep one",
    ),
    "weight and no train": (
        [U, {**A, "train": False, "weight": 0.5}],
        "/messages/1/train",
        "keep one",
    ),
    "two thoughts": (
        [U, {"role": "assistant", "content": "<think>x</think>ho", "reasoning": "y"}],
        "/messages/1/reasoning",
        "keep one",
    ),
    "weight is text": ([U, {**A, "weight": "1"}], "/messages/1/weight", ""),
    "weight is truth": ([U, {**A, "weight": True}], "/messages/1/weight", ""),
    "weight too large": ([U, {**A, "weight": 2}], "/messages/1/weight", "scale"),
    "weight below 0": ([U, {**A, "weight": -1}], "/messages/1/weight", ""),
    "calls of a user": ([{**U, "tool_calls": [CALL]}, A], "/messages/0/tool_calls", ""),
    "calls are no list": ([U, {**A, "tool_calls": CALL}], "/messages/1/tool_calls", ""),
    "call is no object": ([U, {**A, "tool_calls": ["f"]}], "/messages/1/tool_calls/0", ""),
    "call without name": (
        [U, {**A, "tool_calls": [{"function": {}}]}],
        "/messages/1/tool_calls/0/function/name",
        "",
    ),
    "arguments are a list": (
        [U, {**A, "tool_calls": [{"function": {"name": "f", "arguments": []}}]}],
        "/messages/1/tool_calls/0/function/arguments",
        "",
    ),
    "reasoning of a user": ([{**U, "thinking": "x"}, A], "/messages/0/thinking", ""),
    "two reasonings": ([U, {**A, "thinking": "x", "reasoning": "y"}], "/messages/1/reasoning", ""),
    "call id is a number": (
        [U, A, {"role": "tool", "tool_call_id": 1, "content": ""}],
        "/messages/2/tool_call_id",
        "",
    ),
    "message is text": ([U, "ho"], "/messages/1", ""),
    "empty": ([], "/messages", ""),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_bad_messages(name):
    messages, pointer, hint = BAD_MESSAGES[name]
    error = refusal({"messages": messages})
    assert error.where == f"chat.jsonl:1 {pointer}"
    assert hint in error.remedy


def test_messages_that_are_no_list():
    for value in (None, "text", {"role": "user"}, 3):
        assert refusal({"messages": value}).where.endswith("/messages")


def test_no_assistant_turn():
    assert "no assistant turn" in refusal({"messages": [U]}).what
    assert "no assistant turn" in refusal({"prompt": "a", "completion": [U]}).what


def test_columns_must_be_text():
    assert refusal({"user": 1, "assistant": "x"}).where.endswith("/user")
    assert refusal({"prompt": "x", "completion": None}).where.endswith("/completion")
    assert refusal({"prompt": [{**A, "weight": 1}], "completion": "x"}).where.endswith("/prompt")


def test_equal_content_has_one_hash():
    one = read({"messages": [U, A], "id": 1}, line=1)
    two = RowFormat().read(Row({"messages": [U, A], "id": 2}, Origin("other.jsonl", 9)))
    assert one.content_hash() == two.content_hash()
    others = [
        read({"messages": [U, {**A, "weight": 0.5}]}),
        read({"messages": [A, U]}),
        read({"messages": [U, A], "tools": [{"name": "f"}]}),
    ]
    assert len({one.content_hash(), *(o.content_hash() for o in others)}) == 4


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "weight",
                    "type",
                    "text",
                    "from",
                    "value",
                    "messages",
                    "mask",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(
    value=st.dictionaries(
        st.sampled_from(
            [
                *("messages", "prompt", "completion", "tools", "user", "assistant", "system"),
                *("conversations", "instruction", "input", "output", "history", "loss_mask"),
                *("question", "answer", "pair", "text", "input_ids", "labels", "weight"),
            ]
        ),
        JSON,
        max_size=4,
    )
)
def test_anything_is_understood_or_refused(value):
    try:
        found = read(value)
        messages = found.messages if isinstance(found, Conversation) else ()
    except DataError as error:
        refused, messages = error, ()
        is_placed = refused.where.startswith("chat.jsonl:1") and bool(refused.remedy)
    else:
        is_placed = True
    assert is_placed
    assert all(isinstance(message.content, str) for message in messages)
