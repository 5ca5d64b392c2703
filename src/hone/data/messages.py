"""OpenAI's message and tool objects to ours, checked key by key. It knows one message list, not a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn, cast

from hone.data.conversation import ROLES, Json, Message, ToolCall
from hone.data.example import Origin
from hone.data.strict import parse_object
from hone.errors import DataError, nearest

_KEYS: Final = frozenset(
    {
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "weight",
        "reasoning_content",
        "thinking",
        "reasoning",
    }
)
# Keys of OpenAI's own replies that mean nothing to training; other values than null are reported.
_IGNORED: Final = frozenset({"refusal", "annotations", "audio", "metadata", "id", "function_call"})
_REASONING: Final = ("reasoning_content", "thinking", "reasoning")
_OTHER_ROLES: Final = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "function": "tool",
    "observation": "tool",
}


class Remarks:
    """Codes of what was noticed in one row, each once, in order."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def add(self, code: str, detail: str = "") -> None:
        """Note `code`, with a detail that tells cases of it apart."""
        text = f"{code}:{detail}" if detail else code
        if text not in self.codes:
            self.codes.append(text)


def read_messages(value: object, where: str, remarks: Remarks) -> list[Message]:
    """The messages of a list. `where` is the row and the JSON pointer of the list. Raises DataError."""
    if not isinstance(value, list):
        _refuse(f"a list of messages is wanted; found {kind(value)}", where)
    listed = cast("list[Any]", value)
    if not listed:
        _refuse(
            "the list of messages is empty",
            where,
            "write at least one assistant message, or remove the row",
        )
    messages = [_read_message(one, f"{where}/{i}", remarks) for i, one in enumerate(listed)]
    _check_calls(messages, remarks)
    return messages


def text_of(value: object, where: str) -> str:
    """Text, given as text or as a list of text parts. Raises DataError."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(one, f"{where}/{i}") for i, one in enumerate(cast("list[Any]", value)))
    return _refuse(
        f"text is wanted; found {kind(value)}",
        where,
        'put it in quotes: text stays as it is written, so "42" and "true" stay text'
        if isinstance(value, int | float)
        else "write text, or a list of text parts",
    )


def read_tools(value: object, where: str, remarks: Remarks) -> list[Json]:
    """The tools of a row: OpenAI's list of function schemas, or nothing. Raises DataError."""
    if value is None:
        return []
    where = f"{where} /tools"
    if isinstance(value, str):
        _refuse(
            "a list of tools is wanted; found text",
            where,
            "write the JSON itself, not JSON inside a text",
        )
    if not isinstance(value, list):
        _refuse(f"a list of tools is wanted; found {kind(value)}", where)
    tools: list[Json] = []
    for i, one in enumerate(cast("list[Any]", value)):
        if not isinstance(one, dict):
            _refuse(f"a tool is an object; found {kind(one)}", f"{where}/{i}")
        tool = cast("dict[str, Any]", one)
        function = tool.get("function")
        if "function" not in tool and isinstance(tool.get("name"), str):
            remarks.add("bare-tool")
            tool = {"type": "function", "function": tool}
        elif not isinstance(function, dict) or not isinstance(
            cast("dict[str, Any]", function).get("name"), str
        ):
            _refuse(
                "a tool has no function with a name",
                f"{where}/{i}",
                'write {"type": "function", "function": {"name": …, "parameters": {…}}}',
            )
        tools.append(tool)
    return tools


def kind(value: object) -> str:
    """A value's kind in a user's words, with a glimpse of short ones."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"[:40]
        case str():
            return f"the text {value[:30]!r}"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return type(value).__name__


def _read_message(value: object, where: str, remarks: Remarks) -> Message:
    if not isinstance(value, dict):
        _refuse(f"a message is an object; found {kind(value)}", where)
    said = cast("dict[str, Any]", value)
    role = _role(said, where)
    _check_keys(said, role, where, remarks)
    calls = _tool_calls(said.get("tool_calls"), role, f"{where}/tool_calls", remarks)
    content = said.get("content")
    refusal = said.get("refusal")
    if content is None and isinstance(refusal, str) and role == "assistant":
        content = refusal
        remarks.add("refusal-as-content")
    if content is None:
        if not calls:
            _refuse(
                f"the content is {'null' if 'content' in said else 'missing'} and there are no tool calls",
                f"{where}/content",
                'write text (it may be ""), or remove the message',
            )
        content = ""
    text = text_of(content, f"{where}/content")
    if role == "assistant" and not text and not calls:
        remarks.add("empty-assistant")
    return Message(
        role,
        text,
        _reasoning(said, role, where),
        calls,
        _text_or_none(said, "tool_call_id", where),
        _text_or_none(said, "name", where),
        _weight(said, role, where),
    )


def _role(said: Mapping[str, Any], where: str) -> str:
    if "role" not in said:
        keys = ", ".join(map(repr, said)) or "no keys"
        _refuse(
            f"the message has no 'role'; found {keys}",
            where,
            nearest("role", said) if said else None,
        )
    role = said["role"]
    if not isinstance(role, str):
        _refuse(f"the role is text; found {kind(role)}", f"{where}/role")
    if role not in ROLES:
        meant = _OTHER_ROLES.get(role.lower())
        hint = (
            f"did you mean {meant!r}? allowed: {', '.join(ROLES)}"
            if meant
            else nearest(role, ROLES)
        )
        _refuse(f"unknown role {role!r}", f"{where}/role", hint)
    return role


def _check_keys(said: Mapping[str, Any], role: str, where: str, remarks: Remarks) -> None:
    for key in said:
        if key in _KEYS:
            continue
        if key == "function_call" and said[key] is not None:
            _refuse(
                "function_call is the old form of a tool call",
                f"{where}/function_call",
                'write "tool_calls": [{"type": "function", "function": {"name": …, "arguments": …}}]',
            )
        if key == "audio" and said[key] is not None:
            _refuse("audio cannot be trained on", f"{where}/audio", "remove it, or the row")
        if key not in _IGNORED:
            _refuse(f"unknown key {key!r} in a message", where, nearest(key, _KEYS))
        if said[key] is not None and not (key == "refusal" and role == "assistant"):
            remarks.add("unknown-key", f"messages/{key}")


def _part(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        _refuse(f"a part of a content is an object; found {kind(value)}", where)
    part = cast("dict[str, Any]", value)
    sort = part.get("type", "text" if "text" in part else None)
    if sort == "refusal" and isinstance(part.get("refusal"), str):
        return part["refusal"]
    if sort not in ("text", "input_text", "output_text"):
        _refuse(
            f"a part of type {sort!r} cannot be trained on: only text",
            where,
            "remove the part, or the row",
        )
    if not isinstance(part.get("text"), str):
        _refuse(f"the text of a part is text; found {kind(part.get('text'))}", f"{where}/text")
    return part["text"]


def _reasoning(said: Mapping[str, Any], role: str, where: str) -> str | None:
    found: str | None = None
    for key in _REASONING:
        value = said.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            _refuse(f"reasoning is text; found {kind(value)}", f"{where}/{key}")
        if role != "assistant":
            _refuse(
                f"only an assistant message has reasoning; this one is {role!r}", f"{where}/{key}"
            )
        if found is not None and value != found:
            _refuse(
                "two keys give different reasoning",
                f"{where}/{key}",
                "keep one of " + ", ".join(_REASONING),
            )
        found = value
    return found


def _weight(said: Mapping[str, Any], role: str, where: str) -> float | None:
    value = said.get("weight")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _refuse(f"a weight is a number from 0 to 1; found {kind(value)}", f"{where}/weight")
    if not 0 <= value <= 1:
        _refuse(
            f"a weight lies in 0 to 1; found {value}", f"{where}/weight", "scale the weights down"
        )
    if value and role != "assistant":
        _refuse(
            f"only assistant messages are trained; this one is {role!r}",
            f"{where}/weight",
            "remove the weight, or set it to 0",
        )
    return float(value)


def _tool_calls(value: object, role: str, where: str, remarks: Remarks) -> tuple[ToolCall, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list):
        _refuse(f"a list of tool calls is wanted; found {kind(value)}", where)
    if role != "assistant":
        _refuse(f"only an assistant message calls tools; this one is {role!r}", where)
    return tuple(
        _tool_call(one, f"{where}/{i}", remarks) for i, one in enumerate(cast("list[Any]", value))
    )


def _tool_call(value: object, where: str, remarks: Remarks) -> ToolCall:
    if not isinstance(value, dict):
        _refuse(f"a tool call is an object; found {kind(value)}", where)
    said = cast("dict[str, Any]", value)
    if said.get("type", "function") != "function":
        _refuse(
            f"a tool call of type {said['type']!r} is not known",
            f"{where}/type",
            "allowed: function",
        )
    inner = said.get("function", said)
    if not isinstance(inner, dict):
        _refuse(
            f"the function of a tool call is an object; found {kind(inner)}", f"{where}/function"
        )
    function = cast("dict[str, Any]", inner)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        _refuse("a tool call has no function name", f"{where}/function/name")
    arguments = _arguments(function.get("arguments"), f"{where}/function/arguments", remarks)
    return ToolCall(name, arguments, _text_or_none(said, "id", where))


def _arguments(value: object, where: str, remarks: Remarks) -> Json | str:
    """The object that the text meant: a template that writes JSON would write a text twice encoded."""
    if value is None or value == "":
        return {}
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    if not isinstance(value, str):
        _refuse(f"arguments are an object, or JSON text; found {kind(value)}", where)
    try:
        return parse_object(value.encode(), Origin(where, 0))
    except DataError:
        remarks.add("arguments-not-json")
        return value


def _text_or_none(said: Mapping[str, Any], key: str, where: str) -> str | None:
    value = said.get(key)
    if value is not None and not isinstance(value, str):
        _refuse(f"{key} is text; found {kind(value)}", f"{where}/{key}")
    return value


def _check_calls(messages: list[Message], remarks: Remarks) -> None:
    """Calls and results that do not belong together: a template renders them all the same."""
    called: set[str] = set()
    answered: set[str] = set()
    for message in messages:
        for call in message.tool_calls:
            if call.id is not None and call.id in called:
                remarks.add("duplicate-call-id")
            if call.id is not None:
                called.add(call.id)
        if message.role == "tool" and message.tool_call_id is not None:
            if message.tool_call_id not in called:
                remarks.add("result-without-call")
            answered.add(message.tool_call_id)
    if called - answered and any(message.role == "tool" for message in messages):
        remarks.add("call-without-result")


def _refuse(what: str, where: str, remedy: str | None = None) -> NoReturn:
    raise DataError(what, where=where, remedy=remedy or "repair the row, or remove it")
