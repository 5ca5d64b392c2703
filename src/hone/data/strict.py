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

_SPACES: Final = (b" ", b"\t", b"\r", b"\n")
_COLONS_SPLIT: Final = 10_000
"""Above this many colons a row is parsed anew, rather than cut into as many pieces."""
_EXACT: Final = 1e18
"""Integers up to here are given as integers, without a digit lost."""


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
    keys, depth, is_rounded = _measure(value)
    if depth > MAX_DEPTH:
        raise DataError(
            f"nested {depth} levels deep; at most {MAX_DEPTH}",
            where=str(where),
            remedy="flatten it",
        )
    # The fast parser keeps the last of two equal keys and rounds long integers.
    return _parse_exactly(data, where) if is_rounded or not keeps_keys(data, keys) else value


def keeps_keys(data: bytes, keys: int) -> bool:
    """Whether JSON that holds `keys` keys after parsing surely lost none of them to an equal one.

    Each key is written as a quote, perhaps space, and a colon. A colon inside of a string can only add to
    that count, so a count that is no higher proves that every key was kept. False means: look closer.
    """
    colons = data.count(b":")
    if colons == keys:
        return True
    if colons > _COLONS_SPLIT:
        return False
    before = data.split(b":")
    before.pop()
    for text in before:
        if not text.endswith(b'"'):
            if not text.endswith(_SPACES):
                continue
            text = text.rstrip(b" \t\r\n")
            if not text.endswith(b'"'):
                continue
        if text.endswith(b'\\"'):
            inner = text[:-1]
            if (len(inner) - len(inner.rstrip(b"\\"))) % 2:
                continue  # the quote is escaped: it stands inside of a string
        keys -= 1
    return keys == 0


def keeps_close_keys(data: bytes, keys: int) -> bool:
    """The same, quicker, and True for fewer: for texts without colons, or JSON that writes every colon right
    after its key.

    A quote before a colon ends a key, or stands escaped inside of a string; so there are at least as many of
    them as keys, where no key has space behind it.
    """
    return data.count(b":") == keys or (
        data.count(b'":') == keys
        and not (b" :" in data or b"\t:" in data or b"\n:" in data or b"\r:" in data)
    )


def _measure(value: object) -> tuple[int, int, bool]:
    """How many keys, how many levels deep, and whether a number may be a rounded one; without recursion."""
    keys, depth = 0, 1
    is_rounded = False
    level: list[Any] = [value]
    while True:
        deeper: list[Any] = []
        for inner in level:
            if inner.__class__ is dict:
                keys += len(inner)
                inside = inner.values()
            elif inner.__class__ is list:
                inside = inner
            else:
                inside = (inner,)  # the whole value is neither
            for one in inside:
                kind = one.__class__
                if kind is dict or kind is list:
                    deeper.append(one)
                elif kind is float and not -_EXACT < one < _EXACT:
                    is_rounded = True  # an integer beyond 64 bits is given as this
        if not deeper:
            return keys, depth, is_rounded
        level = deeper
        depth += 1


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
