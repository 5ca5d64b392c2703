"""One row repaired, without a word of it guessed: each repair is named. It knows one row, no file, and judges nothing.

Text stays as it is written. What would need a guess (an unknown role, a missing reply) is left alone, and the judge
refuses the row afterwards.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from hone.data.conversation import ROLES
from hone.data.messages import MESSAGE_KEYS, OTHER_ROLES
from hone.data.strict import JsonObject, parse_value
from hone.errors import DataError

Repaired = Callable[[str], object]
"""Told of each repair."""

_SPACE: Final = b" \t\r\n"
_BOM: Final = b"\xef\xbb\xbf"
_SPEAKERS: Final = {
    **dict.fromkeys(("bot", "model", "ai", "chatgpt"), "gpt"),
    **dict.fromkeys(("function", "tool_response"), "observation"),
}
_KNOWN_SPEAKERS: Final = frozenset(
    {"human", "gpt", "system", "observation", "function_call", "user", "assistant", "tool"}
)


def repaired_bytes(data: bytes, say: Repaired) -> bytes:
    """A row's bytes without what does not belong to its JSON."""
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
        say("a byte order mark before the row was removed")
    if data.endswith(b"\r"):
        data = data[:-1]
        say("the line end was CR LF")
    if data != (bare := data.strip(_SPACE)):
        data = bare
        say("space around the row was removed")
    if data.endswith((b"},", b"],")):
        data = data[:-1]
        say("a comma after the row was removed")
    return data


def repaired_row(value: JsonObject, data: bytes, say: Repaired) -> JsonObject:
    """The row `value`, which `data` spells, with what can be repaired in it; the given one is left as it was."""
    row: JsonObject = json.loads(json.dumps(value))
    spelled = _spelled(data)
    _repair_list(row, spelled, "messages", say, is_log=False)
    _repair_list(row, spelled, "conversations", say, is_log=False)
    request, said = row.get("input"), spelled.get("input")
    if isinstance(request, dict) and isinstance(said, dict):
        inner = cast("JsonObject", request)
        _repair_list(
            inner,
            cast("JsonObject", said),
            "messages",
            say,
            is_log=row.get("output") is not None,
        )
        _repair_tools(inner, say)
    if "messages" in row or "conversations" in row or "input" in row:
        _repair_tools(row, say)
    return row


class _Number(str):
    """A number as the row spells it."""

    __slots__ = ()


def _spelled(data: bytes) -> JsonObject:
    """The row with each number as its text."""
    found = json.loads(data, parse_int=_Number, parse_float=_Number)
    return cast("JsonObject", found) if isinstance(found, dict) else {}


def _repair_list(
    row: JsonObject, spelled: JsonObject, key: str, say: Repaired, *, is_log: bool
) -> None:
    """Repair the messages or turns that stand under a key."""
    listed, said = row.get(key), spelled.get(key)
    if not isinstance(listed, list) or not isinstance(said, list):
        return
    messages = cast("list[Any]", listed)
    for one, text in zip(messages, cast("list[Any]", said), strict=True):
        if not isinstance(one, dict):
            continue
        message = cast("JsonObject", one)
        if key == "messages":
            _rename(message, text, say)
        if "from" in message:
            _repair_turn(message, cast("JsonObject", text), say)
        else:
            _repair_message(message, cast("JsonObject", text), say)
    if key == "messages" and not is_log:
        _repair_end(messages, say)


def _rename(message: JsonObject, text: JsonObject, say: Repaired) -> None:
    """`from` and `value` among messages are `role` and `content`."""
    for theirs, ours in (("from", "role"), ("value", "content")):
        if theirs in message and ours not in message:
            message[ours] = message.pop(theirs)
            text[ours] = text.pop(theirs)
            say(f"a message's {theirs!r} was named {ours!r}")


def _repair_turn(turn: JsonObject, text: JsonObject, say: Repaired) -> None:
    speaker = turn["from"]
    if isinstance(speaker, str) and speaker not in _KNOWN_SPEAKERS:
        meant = speaker.strip().lower()
        meant = _SPEAKERS.get(meant, meant)
        if meant in _KNOWN_SPEAKERS:
            turn["from"] = meant
            say(f"the speaker {speaker!r} was named {meant!r}")
    _repair_scalar(turn, text, "value", say)


def _repair_message(message: JsonObject, text: JsonObject, say: Repaired) -> None:
    role = message.get("role")
    if isinstance(role, str) and role not in (*ROLES, "function"):
        meant = role.strip().lower()
        meant = OTHER_ROLES.get(meant, meant)
        if meant in ROLES:
            message["role"] = meant
            say(f"the role {role!r} was named {meant!r}")
    _repair_scalar(message, text, "content", say)
    _repair_calls(message, say)
    if message.get("content") is None and isinstance(message.get("refusal"), str):
        message["content"] = message.pop("refusal")
        say("the content was null, and the refusal was taken for it")
    for key in [key for key in message if key not in MESSAGE_KEYS]:
        # What is nearly a known key may be a slip of the pen, and hold what the message says.
        if not difflib.get_close_matches(key, MESSAGE_KEYS, n=1, cutoff=0.6):
            del message[key]
            say(f"the key {key!r} of a message was left out")


def _repair_scalar(message: JsonObject, text: JsonObject, key: str, say: Repaired) -> None:
    """A number, true or false as text, spelled as in the row."""
    value = message.get(key)
    if isinstance(value, bool):
        message[key] = json.dumps(value)
    elif isinstance(value, int | float):
        message[key] = str(text[key])
    else:
        return
    say("a content that was a number, true or false was written as text")


def _repair_calls(message: JsonObject, say: Repaired) -> None:
    """Calls in the form of OpenAI's API: a list, each a function, arguments as JSON text."""
    older = message.get("function_call")
    if isinstance(older, dict) and not message.get("tool_calls"):
        message["tool_calls"] = [{"type": "function", "function": older}]
        del message["function_call"]
        say("function_call was written as tool_calls")
    elif older is None and "function_call" in message:
        del message["function_call"]
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        calls = message["tool_calls"] = [cast("object", calls)]
        say("a single tool call was put into a list")
    if not isinstance(calls, list):
        return
    listed = cast("list[Any]", calls)
    for i, call in enumerate(listed):
        if not isinstance(call, dict):
            continue
        said = cast("JsonObject", call)
        if "function" not in said and isinstance(said.get("name"), str):
            outer = {key: said.pop(key) for key in ("id", "type") if key in said}
            said = listed[i] = {"type": "function", **outer, "function": said}
            say("a tool call without 'function' around it was given one")
        function = said.get("function")
        if isinstance(function, dict):
            _repair_arguments(cast("JsonObject", function), say)


def _repair_arguments(function: JsonObject, say: Repaired) -> None:
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)
        say("arguments given as an object were written as JSON text")
    elif arguments is None or arguments == "":
        function["arguments"] = "{}"
        say("missing arguments were written as {}")


def _repair_tools(row: JsonObject, say: Repaired) -> None:
    tools = row.get("tools")
    if isinstance(tools, str):
        value = _meant(tools) if tools.strip() else list[Any]()
        if not isinstance(value, list):
            return
        tools = row["tools"] = cast("list[Any]", value)
        say("tools given as JSON text were written as a list")
    elif isinstance(tools, dict):
        tools = row["tools"] = [cast("object", tools)]
        say("a single tool was put into a list")
    if not isinstance(tools, list):
        return
    listed = cast("list[Any]", tools)
    for i, tool in enumerate(listed):
        bare = cast("JsonObject", tool) if isinstance(tool, dict) else {}
        if "function" not in bare and isinstance(bare.get("name"), str):
            function = {key: inner for key, inner in bare.items() if key != "type"}
            listed[i] = {"type": "function", "function": function}
            say("a tool without 'function' around it was given one")


def _meant(text: str) -> Any:
    try:
        return parse_value(text.encode("utf-8", "surrogatepass"), "tools")
    except DataError:
        return None


def _repair_end(messages: list[Any], say: Repaired) -> None:
    """Take away what follows the last reply, and system messages that say nothing."""
    said = [cast("JsonObject", one) for one in messages if isinstance(one, dict)]
    silent = [one for one in said if _is_silent(one)]
    for one in silent:
        if one.get("role") in ("system", "developer"):
            messages.remove(one)
            say("a system message without text was left out")
    end = len(messages)
    while end and not _is_reply(messages[end - 1]):
        end -= 1
    if end and end < len(messages):
        say(f"turns after the last reply were left out: {len(messages) - end}")
        del messages[end:]


def _is_reply(message: object) -> bool:
    if not isinstance(message, dict):
        return True  # what it is cannot be known, so nothing is taken away
    said = cast("JsonObject", message)
    if said.get("role") == "assistant":
        return not _is_silent(said)
    return said.get("role") not in ROLES


def _is_silent(said: Mapping[str, Any]) -> bool:
    """Whether a message says nothing and calls no tool."""
    content = said.get("content")
    if said.get("tool_calls") or said.get("function_call"):
        return False
    return content is None or content == [] or (isinstance(content, str) and not content.strip())
