"""ShareGPT rows: turns of from and value, tool calls and their results among them. It knows the tags, not what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from hone.data.conversation import Content, Message, ToolCall
from hone.data.messages import check_calls, read_weight
from hone.data.shapes.given import Given
from hone.data.shapes.tags import Tags
from hone.data.strict import parse_value
from hone.data.tools import calls_from_text, read_call, read_calls
from hone.data.values import kind, refuse, text_of
from hone.errors import DataError, nearest

_OWN_KEYS: Final = frozenset({"weight", "train"})


def is_sharegpt(value: Mapping[str, Any], tags: Tags) -> bool:
    """Whether the turns of a row name their speaker by the tag."""
    turns = value["conversations"]
    first = cast("list[Any]", turns)[0] if isinstance(turns, list) and turns else None
    return isinstance(first, dict) and tags.role in first


def sharegpt_row(given: Given) -> Content:
    """Turns that alternate between a human or a tool's result and a reply or a tool call.

    Turns in another order are kept as they are written, and remarked.
    """
    turns = given.value["conversations"]
    where = given.at("/conversations")
    if not isinstance(turns, list):
        refuse(f"a list of turns is wanted; found {kind(turns)}", where)
    listed = cast("list[Any]", turns)
    if not listed:
        refuse("the list of turns is empty", where)
    messages = [_turn(one, f"{where}/{i}", given) for i, one in enumerate(listed)]
    if not _alternate(messages):
        given.remarks.add("turn-order")
    check_calls(messages, given.remarks, one_result=True)
    return given.conversation(given.with_system(messages), own=len(messages))


def _turn(value: object, where: str, given: Given) -> Message:
    tags = given.tags
    if not isinstance(value, dict):
        refuse(f"a turn is an object; found {kind(value)}", where)
    said = cast("dict[str, Any]", value)
    for key in (tags.role, tags.content):
        if key not in said:
            found = ", ".join(map(repr, said)) or "no keys"
            hint = nearest(key, said) + "; " if said else ""
            refuse(
                f"the turn has no {key!r}; found {found}", where, f"{hint}data.tags renames keys"
            )
    role = _role(said[tags.role], f"{where}/{tags.role}", tags)
    for key in said:
        if key not in (tags.role, tags.content) and key not in _OWN_KEYS:
            given.remarks.add("unknown-key", f"conversations/{key}")
    weight = read_weight(said, where)
    where = f"{where}/{tags.content}"
    if role == "function":
        text, calls = _calls(said[tags.content], where, given)
        return Message("assistant", text, tool_calls=calls, weight=weight)
    text = text_of(said[tags.content], where)
    if role == "assistant" and not text:
        given.remarks.add("empty-assistant")
    return Message(role, text, weight=weight)


def _role(name: object, where: str, tags: Tags) -> str:
    if not isinstance(name, str):
        refuse(f"a speaker is text; found {kind(name)}", where)
    role = tags.roles.get(name)
    if role is None:
        refuse(
            f"unknown speaker {name!r}",
            where,
            f"{nearest(name, tags.roles)}; data.tags names others, e.g. data.tags.user={name}",
        )
    return role


def _calls(value: object, where: str, given: Given) -> tuple[str, tuple[ToolCall, ...]]:
    """What is said before a call, which is a think block or nothing, and the calls."""
    if isinstance(value, dict):
        return "", (read_call(cast("object", value), where, given.remarks),)
    if isinstance(value, list):
        calls = read_calls(cast("object", value), where, given.remarks)
        if not calls:
            refuse("the list of tool calls is empty", where)
        return "", calls
    text = text_of(value, where)
    thought, closes, rest = text.partition("</think>")
    if not (closes and thought.startswith("<think>")):
        thought, closes, rest = "", "", text
    try:
        parse_value(rest.encode("utf-8", "surrogatepass"), where)
    except DataError as fault:
        refuse(
            f"a function call is JSON; {fault.what}",
            where,
            'write {"name": …, "arguments": {…}}, or a list of such objects, as JSON text',
        )
    return thought + closes, calls_from_text(rest, where, given.remarks)


def _alternate(messages: Sequence[Message]) -> bool:
    """Whether one side asks and the other answers by turns, with an answer at the end."""
    turns = messages[messages[0].role == "system" :]
    sides = (("user", "tool"), ("assistant",))
    return len(turns) % 2 == 0 and all(one.role in sides[i % 2] for i, one in enumerate(turns))
