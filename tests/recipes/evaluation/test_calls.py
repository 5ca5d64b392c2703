"""Tool calls compared as JSON means them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.conversation import ToolCall
from hone.infer.call_formats import Call
from hone.recipes.evaluation import calls
from hone.recipes.evaluation.measure import Measure
from hone.recipes.evaluation.question import spelled_calls
from tests.recipes.evaluation.asked import TOOL, answer, question

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=8,
)


@given(JSON)
def test_a_value_is_itself_however_it_is_written(value: Any) -> None:
    assert calls.same_json(value, json.loads(json.dumps(value)))


@given(JSON, JSON)
def test_two_values_are_the_same_where_their_texts_are(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert calls.same_json(one, other) == same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(1, 1.0, True), (True, 1, False), (0, False, False), ("1", 1, False), ([1], [1, 1], False)],
)
def test_kinds(one: Any, other: Any, same: bool) -> None:
    assert calls.same_json(one, other) is same


def score(measure: Measure, wanted: tuple[ToolCall, ...], *got: Call) -> float | None:
    return measure.score(measure.take(question(calls=wanted), answer("", *got)))


def test_names_and_arguments() -> None:
    wanted = (ToolCall("find", {"id": "a", "n": 1}), ToolCall("find", {"id": "b"}))
    right = [Call("find", {"id": "b"}), Call("find", {"n": 1.0, "id": "a"})]
    assert score(calls.tool_call(), wanted, *right) == 1
    assert score(calls.tool_name(), wanted, *right) == 1
    other = [Call("find", {"id": "b"}), Call("find", {"id": "b"})]
    assert score(calls.tool_call(), wanted, *other) == 0
    assert score(calls.tool_name(), wanted, *other) == 1
    assert score(calls.tool_name(), wanted, right[0]) == 0
    assert score(calls.tool_call(), wanted, *right, Call("drop", {})) == 0


def test_who_is_asked() -> None:
    calling = question(calls=(ToolCall("find", {}),))
    silent = question("no", tools=(TOOL,))
    plain = question("no")
    assert [calls.calls(one) for one in (calling, silent, plain)] == [True, False, False]
    assert [calls.might_call(one) for one in (calling, silent, plain)] == [False, True, False]
    measure = calls.tool_abstain()
    assert measure.score(measure.take(silent, answer("no"))) == 1
    assert measure.score(measure.take(silent, answer("", Call("find", {})))) == 0


def test_calls_that_a_text_spells_are_read_as_calls() -> None:
    text = 'I will look.\n\n<tool_call>\n{"name": "get", "arguments": {"id": 7}}\n</tool_call>\n'
    rest, calls = spelled_calls(text)
    assert rest.strip() == "I will look."
    assert [(one.name, one.arguments) for one in calls] == [("get", {"id": 7})]
    for plain in ("no call", "<tool_call>nothing</tool_call>", "<tool_call>"):
        assert spelled_calls(plain) == (plain, ())
