"""Tool calls inside the text of a turn: found, read and written. It knows no tool."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from hone.data.agent.row import Turn
from hone.data.example import Origin
from hone.data.messages import kind
from hone.data.strict import JsonObject, parse_object, parse_value
from hone.errors import DataError

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"
_THINK: Final = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)
_NAME: Final = re.compile(r'"name"\s*:\s*"([^"]*)"')
_ARGUMENTS: Final = re.compile(r'"arguments"\s*:')
_NOWHERE: Final = Origin("", 0)


@dataclass(frozen=True)
class Calls:
    """The calls of one turn, and how the turn is written with other ones in their place."""

    calls: tuple[JsonObject, ...]
    write: Callable[[tuple[JsonObject, ...]], str]


def as_json(value: object) -> str:
    """JSON with every script as it is."""
    return json.dumps(value, ensure_ascii=False)


def split_think(text: str) -> tuple[str, str]:
    """A think block at the beginning, stripped, and what follows it."""
    found = _THINK.match(text)
    return ("", text) if found is None else (found[0].strip(), text[found.end() :])


def function_calls(value: str) -> Calls:
    """The calls of a `function_call` turn: JSON of one object or of a list. Raises DataError."""
    think, text = split_think(value)
    data = text.strip().encode("utf-8", "surrogatepass")
    is_list = data.startswith(b"[")
    try:
        found: Any = parse_value(data, "a call")
    except DataError as fault:
        near = f"{text.strip()[:60]!r}: {fault.what}"
        raise DataError(f"a function call is not JSON; found {near}") from None
    calls = tuple(map(_call, found if is_list else [found]))
    if not calls:
        raise DataError("a function call is not JSON; found an empty list")

    def write(calls: tuple[JsonObject, ...]) -> str:
        told = as_json(list(calls) if is_list else calls[0])
        return f"{think}\n{told}" if think else told

    return Calls(calls, write)


def tagged_calls(value: str) -> Calls:
    """The calls between `<tool_call>` tags. Raises DataError where a tag holds no call."""
    decoder = json.JSONDecoder()
    spans: list[tuple[int, int]] = []
    calls: list[JsonObject] = []
    at = 0
    while (tag := value.find(OPEN, at)) >= 0:
        start = tag + len(OPEN)
        start += len(value[start:]) - len(value[start:].lstrip())
        try:
            # Read as JSON and not up to the next closing tag: a text among the arguments may spell one.
            _, stop = decoder.raw_decode(value, start)
            call = parse_object(value[start:stop].encode("utf-8", "surrogatepass"), _NOWHERE)
        except (ValueError, RecursionError):  # DataError is a ValueError
            raise DataError(
                f"a tool call is not JSON; found {value[start : start + 60]!r}"
            ) from None
        if not value[stop:].lstrip().startswith(CLOSE):
            raise DataError(f"a tool call is not closed; found {value[stop : stop + 30]!r}")
        calls.append(_call(call))
        spans.append((start, stop))
        at = stop

    def write(calls: tuple[JsonObject, ...]) -> str:
        text, end = "", 0
        for (start, stop), call in zip(spans, calls, strict=True):
            text += value[end:start] + as_json(call)
            end = stop
        return text + value[end:]

    return Calls(tuple(calls), write)


def calls_of(turn: Turn) -> Calls | None:
    """The calls of a turn of the assistant, in either form; None where it makes none. Raises DataError."""
    if turn.role == "function_call":
        return function_calls(turn.value)
    return tagged_calls(turn.value) if turn.role == "gpt" and OPEN in turn.value else None


def hermes(calls: tuple[JsonObject, ...]) -> str:
    """The calls between tags, each ending with a line feed."""
    return "".join(
        f"{OPEN}\n{as_json({'name': call['name'], 'arguments': call.get('arguments', {})})}\n{CLOSE}\n"
        for call in calls
    )


def looks_like_call(text: str) -> bool:
    """Whether a text holds a call, with tags or without."""
    return OPEN in text or (_NAME.search(text) is not None and _ARGUMENTS.search(text) is not None)


def first_name(text: str) -> str:
    """The function that a text calls first."""
    found = _NAME.search(text, max(0, text.find(OPEN)))
    return found[1] if found else "that is named below"


def arguments_from(text: str) -> tuple[JsonObject, str]:
    """The object that an arguments text means, and how it was found: nothing is invented, at worst it is empty."""
    stripped = text.strip()
    if not stripped:
        return {}, "empty arguments became {}"
    if (found := _parsed(stripped)) is not None:
        return found, "arguments written as text were parsed"
    if stripped.startswith("{") and stripped.endswith("}"):
        found = _python_object(stripped)
        if found is None:
            found = _parsed(stripped.replace("'", '"'))
        if found is not None:
            return found, "arguments in single quotes were parsed"
    return {}, "arguments that are no JSON object became {}"


def _parsed(text: str) -> JsonObject | None:
    try:
        return parse_object(text.encode("utf-8", "surrogatepass"), _NOWHERE)
    except DataError:
        return None


def _python_object(text: str) -> JsonObject | None:
    """A dictionary as Python prints it: an apostrophe inside a text is told from the quotes around it."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            found: object = ast.literal_eval(text)
        # Written and read again: tuples, sets and numbers as keys are no JSON.
        return _parsed(json.dumps(found)) if _is_json(found) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value).items()
        return all(isinstance(key, str) and _is_json(inner) for key, inner in pairs)
    if isinstance(value, list):
        return all(map(_is_json, cast("list[object]", value)))
    return value is None or isinstance(value, str | bool | int | float)


def _call(value: object) -> JsonObject:
    if isinstance(value, dict):
        call = cast("JsonObject", value)
        if isinstance(call.get("name"), str) and call["name"]:
            return call
    raise DataError(f"a function call has no name; found {kind(cast('object', value))}")
