"""The short way of plain messages says what the careful one says, and leaves it all that is not plain."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.conversation import Conversation
from hone.data.formats import RowFormat
from hone.data.messages import plain_messages, read_message
from hone.data.remarks import Remarks
from hone.errors import DataError
from tests.data.rows import A, U, read

ROLE = st.sampled_from(
    [
        "system",
        "user",
        "assistant",
        "assistant",
        "tool",
        "developer",
        "function",
        "bot",
        None,
        1,
        [],
    ]
)
TEXT = st.sampled_from(["", "hi", "<think>a</think>b", None, 1, True, ["x"], {"a": 1}, []])
MORE = st.sampled_from([{}] * 6 + [{"weight": 0}, {"name": "n"}, {"x": 1}, {"reasoning": "a"}])
MESSAGE = st.builds(
    lambda role, text, more: {"role": role, "content": text, **more}, ROLE, TEXT, MORE
) | st.sampled_from([U, A, A, {"role": "user"}, {"content": "x"}, None, "x", []])
ROW = st.builds(
    lambda messages, more: {"messages": messages, **more},
    st.lists(MESSAGE, max_size=4) | st.sampled_from([None, "x", {}, [U, A]]),
    st.sampled_from(
        [{}, {}, {"id": 1}, {"tools": None}, {"system": "s"}, {"images": [1]}, {"loss_mask": "all"}]
    ),
)


def outcome(row: object, form: RowFormat) -> object:
    try:
        found = read(row, form)
    except DataError as error:
        return str(error)
    assert isinstance(found, Conversation)
    return found.messages, found.tools, found.remarks


@settings(max_examples=400)
@given(row=ROW, before=st.lists(ROW, max_size=3))
def test_what_was_read_before_changes_nothing(row, before):
    used, fresh = RowFormat("messages"), RowFormat("messages")
    for one in (*before, {"messages": [U, A]}, {"messages": [U, A], "id": 2}):
        outcome(one, used)
    assert outcome(row, used) == outcome(row, fresh)


@settings(max_examples=400)
@given(messages=st.lists(MESSAGE, max_size=4))
def test_plain_messages_are_those_of_the_careful_way(messages):
    plain = plain_messages(messages)
    if plain is not None:
        remarks = Remarks()
        assert [*plain] == [read_message(one, "", remarks) for one in messages]
        assert remarks.codes == []
        assert any(one.role == "assistant" for one in plain)


def test_plain_rows_take_the_short_way():
    assert plain_messages([U, A]) is not None
    assert plain_messages([U]) is None
    assert plain_messages([U, {**A, "weight": 1}]) is None
    assert plain_messages([U, {"role": "assistant", "content": ""}]) is None
