"""Measures of tool calls: which functions an answer calls, and with which arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hone.data.conversation import ToolCall
from hone.infer.call_formats import Call
from hone.recipes.evaluation.measure import Measure, scored
from hone.recipes.evaluation.question import Question


def tool_name() -> Measure:
    """Whether the functions that are called are those of the reference."""
    return Measure(
        "tool_name",
        "of turns whose reference calls: share that call the same functions, each as often, in any order",
        calls,
        scored(lambda q, a: same_names(q.reference.calls, a.calls)),
    )


def tool_call() -> Measure:
    """Whether the calls are those of the reference, arguments included."""
    return Measure(
        "tool_call",
        "of turns whose reference calls: share with the same calls, arguments equal as JSON values, in any order",
        calls,
        scored(lambda q, a: same_calls(q.reference.calls, a.calls)),
    )


def tool_abstain() -> Measure:
    """Whether nothing is called where the reference calls nothing."""
    return Measure(
        "tool_abstain",
        "of turns that may call and whose reference does not: share that call nothing either",
        might_call,
        scored(lambda _, a: not a.calls),
    )


def calls(question: Question) -> bool:
    """Whether the reference calls something."""
    return bool(question.reference.calls)


def might_call(question: Question) -> bool:
    """Whether functions may be called, and the reference calls none."""
    return bool(question.schemas) and not question.reference.calls


def same_names(wanted: Sequence[ToolCall], got: Sequence[Call]) -> bool:
    """Whether the same functions are called, each as often."""
    return Counter(one.name for one in wanted) == Counter(one.name for one in got)


def same_calls(wanted: Sequence[ToolCall], got: Sequence[Call]) -> bool:
    """Whether the same functions are called with the same arguments, in any order."""
    left = list(got)
    for one in wanted:
        place = next(
            (
                i
                for i, other in enumerate(left)
                if other.name == one.name and same_json(one.arguments, other.arguments)
            ),
            None,
        )
        if place is None:
            return False
        del left[place]
    return not left


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: true is not 1, 1 is 1.0, the order of keys says nothing."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        ours, theirs = cast("Mapping[str, Any]", one), cast("Mapping[str, Any]", other)
        return ours.keys() == theirs.keys() and all(same_json(ours[k], theirs[k]) for k in ours)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        first, second = cast("Sequence[Any]", one), cast("Sequence[Any]", other)
        return len(first) == len(second) and all(map(same_json, first, second))
    return type(cast(object, one)) is type(cast(object, other)) and one == other
