"""Readers of tool calls, one for each format that families write. They know no template and no stream.

Each takes what stands between the marks of a format, and gives the calls in it, or None where it is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

Schemas = Mapping[str, Mapping[str, Any]]
"""The JSON schema of each function's arguments, by its name."""

_FUNCTION: Final = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER: Final = re.compile(
    r"<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL
)
_ARGUMENT: Final = re.compile(
    r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|\Z)", re.DOTALL
)
_DEEPSEEK: Final = re.compile(
    r"<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)(?:<｜tool▁call▁end｜>|\Z)", re.DOTALL
)
_FENCED: Final = re.compile(r"([^\n]+)\n```json\n(.*?)\n?```\s*", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A function and the JSON object of its arguments."""

    name: str
    arguments: Mapping[str, Any]


def read_json(text: str, schemas: Schemas) -> list[Call] | None:
    """One object of a name and arguments (or `parameters`), a list of such, or several with `;` or space between."""
    del schemas
    decoder = json.JSONDecoder()
    found: list[Call] = []
    at = 0
    while at < len(text):
        if text[at] in " \t\r\n;,":
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        for one in cast("list[Any]", value) if isinstance(value, list) else [value]:
            call = _call(one)
            if call is None:
                return None
            found.append(call)
    return found or None


def read_function_tags(text: str, schemas: Schemas) -> list[Call] | None:
    """`<function=NAME><parameter=KEY>VALUE</parameter></function>`: values are text, typed by the function's schema."""
    found: list[Call] = []
    for name, body in _FUNCTION.findall(text):
        pairs = {key.strip(): _unframed(value) for key, value in _PARAMETER.findall(body)}
        found.append(_typed(name.strip(), pairs, schemas))
    return found or None


def read_argument_tags(text: str, schemas: Schemas) -> list[Call] | None:
    """NAME, then `<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>` for each argument."""
    name = text.partition("<arg_key>")[0].strip()
    if not name or any(letter in name for letter in "<>{}[]\"'\n "):
        return None
    pairs = {key.strip(): value for key, value in _ARGUMENT.findall(text)}
    return [_typed(name, pairs, schemas)]


def read_mistral(text: str, schemas: Schemas) -> list[Call] | None:
    """A JSON list of calls; or NAME, `[ARGS]` and an object for each, `[TOOL_CALLS]` between them."""
    if text.lstrip().startswith(("[{", "[ {", "{")):
        return read_json(text, schemas)
    found: list[Call] = []
    for part in text.split("[TOOL_CALLS]"):
        head, _, rest = part.partition("{")
        name = head.partition("[")[0].strip()
        arguments = _object("{" + rest)
        if not name or arguments is None:
            return None
        found.append(Call(name, arguments))
    return found or None


def read_deepseek(text: str, schemas: Schemas) -> list[Call] | None:
    """Calls between their own marks: a kind and a fenced block, or a name and an object."""
    del schemas
    found: list[Call] = []
    for head, body in _DEEPSEEK.findall(text):
        fenced = _FENCED.fullmatch(body.strip())
        name, said = (fenced[1], fenced[2]) if fenced else (head, body)
        arguments = _object(said)
        if arguments is None:
            return None
        found.append(Call(name.strip(), arguments))
    return found or None


def _call(value: object) -> Call | None:
    if not isinstance(value, dict):
        return None
    said = cast("dict[str, Any]", value)
    inner: Any = said.get("function")
    if isinstance(inner, dict):
        said = cast("dict[str, Any]", inner)
    name = said.get("name")
    arguments: Any = said.get("arguments", said.get("parameters"))
    if isinstance(arguments, str):
        arguments = _object(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return Call(name, cast("dict[str, Any]", arguments))


def _object(text: str) -> dict[str, Any] | None:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _unframed(value: str) -> str:
    """A value without the one line break that templates write on each side of it."""
    return value.removeprefix("\n").removesuffix("\n")


def _typed(name: str, pairs: Mapping[str, str], schemas: Schemas) -> Call:
    """Values that the schema does not call text are JSON, where they can be."""
    properties: Any = schemas.get(name, {}).get("properties") or {}
    found: dict[str, Any] = {}
    for key, text in pairs.items():
        schema: Any = cast("dict[str, Any]", properties).get(key) or {}
        kind: Any = cast("dict[str, Any]", schema).get("type") if isinstance(schema, dict) else None
        found[key] = text
        if kind != "string":
            try:
                found[key] = json.loads(text)
            except (ValueError, RecursionError):
                found[key] = text
    return Call(name, found)
