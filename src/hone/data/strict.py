"""Strict JSON: one value from bytes, or an error that says where. It knows no shapes and no files."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn, cast

import orjson

from hone.data.example import Origin
from hone.errors import DataError

MAX_DEPTH: Final = 64

JsonObject = dict[str, Any]

_KEY: Final = re.compile(rb'(?<!\\)"[ \t\r\n]*:')
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")


class _RefusedError(ValueError):
    """What the slow parser refuses."""


def parse_object(data: bytes, origin: Origin) -> JsonObject:
    """The object that `data` holds; strings, numbers and their order exactly as written.

    Refused with DataError: what `parse_value` refuses, and a value that is not an object.
    """
    value = parse_value(data, origin)
    if not isinstance(value, dict):
        raise DataError(
            f"a JSON object is wanted; found {_kind(value)}",
            where=str(origin),
            remedy="write it between braces",
        )
    return cast("JsonObject", value)


def parse_row(data: bytes, origin: Origin) -> JsonObject:
    """The row that `data` holds: an object, or a list of two, which becomes `{"pair": [one, two]}`.

    Refused with DataError: what `parse_value` refuses, and every other value.
    """
    value = parse_value(data, origin)
    if isinstance(value, dict):
        return cast("JsonObject", value)
    if isinstance(value, list) and len(cast("list[Any]", value)) == 2:
        return {"pair": value}
    raise DataError(
        f"a row is a JSON object, or a list of a question and an answer; found {_kind(cast('object', value))}",
        where=str(origin),
        remedy='write {"messages": […]} or another known shape',
    )


def parse_value(data: bytes, where: object) -> Any:
    """The JSON value that `data` holds; `where` is what an error names, such as an Origin.

    Refused with DataError: bytes that are not UTF-8, anything that is not RFC 8259 (NaN, a trailing
    comma), duplicate keys, nesting deeper than `MAX_DEPTH`, numbers beyond a double.
    """
    value: Any
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as fault:
        _explain(data, fault, where)
    keys, depth = _measure(value)
    if depth > MAX_DEPTH:
        raise DataError(
            f"nested {depth} levels deep; at most {MAX_DEPTH}",
            where=str(where),
            remedy="flatten it",
        )
    # The fast parser keeps the last of two equal keys and rounds long integers. A count of what looks
    # like a key is never too low unless a key ends in a backslash, so equal counts prove that no key
    # was lost; everything doubtful goes to the slow, exact parser.
    doubtful = len(_KEY.findall(data)) != keys or b'\\\\"' in data or _LONG_NUMBER.search(data)
    return _parse_exactly(data, where) if doubtful else value


def _measure(value: object) -> tuple[int, int]:
    """How many keys, and how many levels deep, without recursion."""
    keys = deepest = 0
    open_values: list[tuple[Any, int]] = [(value, 1)]
    while open_values:
        inner, depth = open_values.pop()
        deepest = max(deepest, depth)
        if isinstance(inner, dict):
            found = cast("dict[str, Any]", inner)
            keys += len(found)
            inside = found.values()
        elif isinstance(inner, list):
            inside = cast("list[Any]", inner)
        else:
            break  # the whole value is neither
        open_values += [(one, depth + 1) for one in inside if isinstance(one, dict | list)]
    return keys, deepest


def _parse_exactly(data: bytes, where: object) -> Any:
    try:
        return json.loads(
            data,
            object_pairs_hook=_without_duplicates,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except _RefusedError as fault:
        raise DataError(
            str(fault), where=str(where), remedy="remove one of the two, or repair the number"
        ) from fault
    except ValueError as fault:  # an integer longer than the interpreter reads
        raise DataError(f"a number cannot be read: {fault}", where=str(where)) from fault


def _without_duplicates(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f"the key {key!r} stands twice in one object")
            seen.add(key)
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _RefusedError(f"the number {text[:40]} is beyond a double")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise _RefusedError(f"{text} is not JSON")


def _explain(data: bytes, fault: orjson.JSONDecodeError, where: object) -> NoReturn:
    """Raise what is wrong with `data`, in the order in which a user can do something about it."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise DataError(
            f"byte {bad.start} of the row (0x{data[bad.start]:02x}) is not UTF-8: {bad.reason}",
            where=str(where),
            remedy="save the file as UTF-8",
        ) from None
    column = fault.pos + 1
    constant = re.match(r"-?(NaN|Infinity)", text[fault.pos :]) or re.match(
        r"-?(NaN|Infinity)", text[max(0, fault.pos - 1) :]
    )
    if constant:
        raise DataError(
            f"{constant[0]} is not a JSON number (column {column})",
            where=str(where),
            remedy="use null or leave the key out",
        )
    if fault.pos >= len(text.rstrip()) or "end of data" in fault.msg:
        raise DataError(
            f"the JSON ends too early, after {len(text)} characters: the row is cut off",
            where=str(where),
            remedy="one whole JSON object per line is wanted; write the row again",
        )
    near = text[max(0, fault.pos - 20) : fault.pos + 20]
    raise DataError(
        f"not JSON at column {column}: {fault.msg.split(':')[0]}; near {near!r}",
        where=str(where),
        remedy="one whole JSON object per line is wanted",
    )


def _kind(value: object) -> str:
    match value:
        case list():
            return "a list"
        case str():
            return "text"
        case bool():
            return "true or false"
        case None:
            return "null"
        case _:
            return "a number"
