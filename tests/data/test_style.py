"""A style: laid once however often, on every shape that has a place for it, and nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.style import Style, lay_style
from hone.errors import DataError
from tests.data.mixed_rows import anything, texts

TEXT = "Be brief."
TURN = {"role": "user", "content": "hi"}
styles = st.one_of(texts, st.sampled_from(["A", "A\n\nA", "A\n\nB", "B"])).map(str.strip)
systems = st.none() | anything | st.lists(st.sampled_from(["A", "B", ""])).map("\n\n".join)


def laid(row, **how):
    return lay_style(row, Style(how.pop("text", TEXT), **how)).row


@given(systems, styles, st.lists(styles, max_size=2), st.sampled_from(["prepend", "replace"]))
def test_twice_is_once(system, text, earlier, mode) -> None:
    style = Style(text, mode, tuple(earlier))
    once = style.over(system)
    assert style.over(once) == once
    assert once == text if mode == "replace" else once.startswith(text)


@given(anything.filter(lambda s: not s.startswith(("A", "B"))), st.sampled_from(["A", "A\n\nB"]))
def test_another_style_takes_the_place_of_an_earlier_one(system, first) -> None:
    before = Style(first).over(system)
    assert Style("new", earlier=(first,)).over(before) == Style("new").over(system)


SHAPES = [
    ("messages", {"messages": [TURN]}, {"messages": [{"role": "system", "content": TEXT}, TURN]}),
    (
        "messages",
        {"messages": [{"role": "developer", "content": "old", "name": "x"}, TURN]},
        {"messages": [{"role": "developer", "content": TEXT + "\n\nold", "name": "x"}, TURN]},
    ),
    (
        "messages",
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "old"}]}]},
        {"messages": [{"role": "system", "content": TEXT + "\n\nold"}]},
    ),
    (
        "messages",
        {"messages": [TURN], "system": "old"},
        {"messages": [TURN], "system": TEXT + "\n\nold"},
    ),
    (
        "turns",
        {"user": "a", "assistant": "b", "id": 7},
        {"system": TEXT, "user": "a", "assistant": "b", "id": 7},
    ),
    (
        "turns",
        {"user": "a", "assistant": "b", "system": None},
        {"user": "a", "assistant": "b", "system": TEXT},
    ),
    (
        "alpaca",
        {"instruction": "a", "input": "", "output": "b", "system": "old"},
        {"instruction": "a", "input": "", "output": "b", "system": TEXT + "\n\nold"},
    ),
    (
        "prompt-completion",
        {"prompt": "a", "completion": "b"},
        {"system": TEXT, "prompt": "a", "completion": "b"},
    ),
    (
        "prompt-completion",
        {"prompt": [TURN], "completion": "b"},
        {"prompt": [{"role": "system", "content": TEXT}, TURN], "completion": "b"},
    ),
    (
        "prompt-completion",
        {"prompt": [TURN], "completion": "b", "system": "old"},
        {"prompt": [TURN], "completion": "b", "system": TEXT + "\n\nold"},
    ),
    (
        "conversations",
        {"conversations": [{"from": "human", "value": "a"}]},
        {"system": TEXT, "conversations": [{"from": "human", "value": "a"}]},
    ),
    (
        "conversations",
        {"conversations": [{"from": "system", "value": "old"}], "system": "unread"},
        {"conversations": [{"from": "system", "value": TEXT + "\n\nold"}], "system": "unread"},
    ),
    (
        "conversations",
        {"system": "old", "conversations": [TURN]},
        {"system": TEXT + "\n\nold", "conversations": [TURN]},
    ),
    (
        "log",
        {"input": {"messages": [TURN], "tools": []}, "output": "b"},
        {
            "input": {"messages": [{"role": "system", "content": TEXT}, TURN], "tools": []},
            "output": "b",
        },
    ),
]


@pytest.mark.parametrize(("shape", "row", "wanted"), SHAPES)
def test_every_shape_with_a_place(shape, row, wanted) -> None:
    before = repr(row)
    styled = lay_style(row, Style(TEXT))
    assert (styled.shape, styled.row) == (shape, wanted)
    assert repr(row) == before
    assert laid(styled.row) == wanted
    again = lay_style(wanted, Style(TEXT, "replace"))
    assert again.after == TEXT
    assert "old" not in repr(again.row)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a"}, "'text' have no place"),
        ({"pair": ["a", "b"]}, "'pairs' have no place"),
        ({"input_ids": [1]}, "'tokens' have no place"),
        ({"question": "a", "answer": "b"}, "not known"),
        ({}, "no keys"),
        ({"messages": "a"}, "list of turns"),
        ({"messages": [3]}, "a turn is an object"),
        ({"user": "a", "assistant": "b", "system": 3}, "text is wanted"),
        ({"input": "a", "output": "b"}, "holds messages"),
    ],
)
def test_refused_by_name(row, said) -> None:
    with pytest.raises(DataError, match=said):
        laid(row)
