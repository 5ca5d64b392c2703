"""Tool definitions and tool calls as a row gives them, to ours. It knows no messages and no templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from hone.data.conversation import Json, ToolCall
from hone.data.remarks import Remarks
from hone.data.strict import parse_value
from hone.data.values import kind, refuse
from hone.errors import DataError


def read_tools(value: object, where: str, remarks: Remarks, key: str = "tools") -> list[Json]:
    """The tools of a row: a list of function schemas, the same as JSON text, or nothing. Raises DataError.

    A schema is OpenAI's object, or the function alone. `where` is the row, `key` the column.
    """
    where = f"{where} /{key}"
    if isinstance(value, str):
        value = _from_text(value, where) if value.strip() else None
    if value is None:
        return []
    if not isinstance(value, list):
        refuse(
            f"a list of tools is wanted; found {kind(value)}",
            where,
            'write [{"type": "function", "function": {…}}], or that list as JSON text',
        )
    listed = cast("list[Any]", value)
    return [_read_tool(one, f"{where}/{i}", remarks) for i, one in enumerate(listed)]


def read_calls(value: object, where: str, remarks: Remarks) -> tuple[ToolCall, ...]:
    """The calls of a list; none where there is no list, or an empty one. Raises DataError."""
    if value is None or value == []:
        return ()
    if not isinstance(value, list):
        refuse(f"a list of tool calls is wanted; found {kind(value)}", where)
    listed = cast("list[Any]", value)
    return tuple(read_call(one, f"{where}/{i}", remarks) for i, one in enumerate(listed))


def read_call(value: object, where: str, remarks: Remarks) -> ToolCall:
    """One call: OpenAI's object, or its function alone, arguments as an object or as JSON text. Raises DataError."""
    if not isinstance(value, dict):
        refuse(f"a tool call is an object; found {kind(value)}", where)
    said = cast("dict[str, Any]", value)
    if said.get("type", "function") != "function":
        refuse(
            f"a tool call of type {said['type']!r} is not known",
            f"{where}/type",
            "allowed: function",
        )
    function, inner = said, where
    if "function" in said:
        inner = f"{where}/function"
        if not isinstance(said["function"], dict):
            refuse(
                f"the function of a tool call is an object; found {kind(said['function'])}", inner
            )
        function = cast("dict[str, Any]", said["function"])
    name = function.get("name")
    if not isinstance(name, str) or not name:
        refuse(
            "a tool call has no function name",
            f"{inner}/name",
            'write {"name": …, "arguments": {…}}',
        )
    arguments = _arguments(function.get("arguments"), f"{inner}/arguments", remarks)
    return ToolCall(name, arguments, _id(said, where))


def calls_from_text(text: str, where: str, remarks: Remarks) -> tuple[ToolCall, ...]:
    """The calls in a JSON text: one object, or a list of them. Raises DataError when it is neither."""
    value = _from_text(text, where)
    if isinstance(value, list) and value:
        return read_calls(cast("list[Any]", value), where, remarks)
    return (read_call(cast("object", value), where, remarks),)


def _read_tool(value: object, where: str, remarks: Remarks) -> Json:
    if not isinstance(value, dict):
        refuse(f"a tool is an object; found {kind(value)}", where)
    tool = cast("dict[str, Any]", value)
    if "function" not in tool and isinstance(tool.get("name"), str):
        remarks.add("bare-tool")
        return {"type": "function", "function": tool}
    function = tool.get("function")
    name = cast("dict[str, Any]", function).get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        refuse(
            "a tool has no function with a name",
            where,
            'write {"type": "function", "function": {"name": …, "parameters": {…}}}',
        )
    return tool


def _arguments(value: object, where: str, remarks: Remarks) -> Json | str:
    """The object that the text meant: a template that writes JSON would write a text twice encoded."""
    if value is None or value == "":
        return {}
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    if not isinstance(value, str):
        refuse(
            f"arguments are an object, or JSON text; found {kind(value)}",
            where,
            'write {"name of an argument": its value, …}',
        )
    try:
        meant = _from_text(value, where)
    except DataError:
        meant = None
    if not isinstance(meant, dict):
        remarks.add("arguments-not-json")
        return value
    return cast("dict[str, Any]", meant)


def _from_text(text: str, where: str) -> object:
    return parse_value(text.encode("utf-8", "surrogatepass"), where)


def _id(said: Mapping[str, Any], where: str) -> str | None:
    value = said.get("id")
    if value is not None and not isinstance(value, str):
        refuse(f"id is text; found {kind(value)}", f"{where}/id")
    return value
