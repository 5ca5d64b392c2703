"""What a user typed, before a type is known, and what it becomes in the field that it is meant for.

It knows the scalars of YAML 1.2 and the shapes of annotations; it knows no section and no file.

A plain (unquoted) scalar keeps the very text that was typed, because only the field can say what it is: `001`
and `2024-01-01` are text in a text field, and `1e-4` is a number everywhere.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}
_WHOLE = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_MOST_DIGITS = (
    400  # Python refuses to read integers of more than 4300 digits; no setting needs these
)


@dataclass(frozen=True)
class Node:
    """One typed value: a mapping (`entries`), a list (`items`), or else a `scalar`.

    `plain` is the text of an unquoted scalar, None for a quoted one; `line` is 1-based, None off a file; `file`
    names another file than the one that was asked for, which includes it.
    """

    scalar: object = None
    plain: str | None = None
    line: int | None = None
    entries: Mapping[str, Node] | None = None
    items: Sequence[Node] | None = None
    file: str | None = None

    @property
    def is_null(self) -> bool:
        """Whether nothing was written, or an unquoted `null`."""
        return self.scalar is None and self.entries is None and self.items is None


def plain_scalar(text: str, *, line: int | None = None) -> Node:
    """An unquoted scalar, with what YAML 1.2's core schema makes of it."""
    return Node(_core_schema(text), text, line)


def _core_schema(text: str) -> object:
    """YAML 1.2.2, section 10.3.2. There are no dates, no `yes`, no octal `017`, no base 60."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) > _MOST_DIGITS:
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    if _OCTAL_OR_HEX.fullmatch(text):
        return int(text, 0)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text) or text in {".nan", ".NaN", ".NAN"}:
        return float(text.replace(".", "", 1))
    return text


def members(annotation: object) -> tuple[object, ...]:
    """The alternatives of an annotation, without `Annotated`; Literals stay whole."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(part for each in get_args(annotation) for part in members(each))
    return (annotation,)


def wants_text(annotation: object) -> bool:
    """Whether an unquoted scalar is text here, whatever it looks like."""
    kinds = members(annotation)
    return str in kinds and not {int, float, bool} & {k for k in kinds if isinstance(k, type)}


def takes_structure(annotation: object) -> bool:
    """Whether a list or a mapping may stand here."""
    return any(
        kind is Any or get_origin(kind) in (list, dict, tuple) for kind in members(annotation)
    )


def fit(node: Node, annotation: object) -> object:
    """The Python value of a node in a field of this annotation; the field's own checks come after."""
    if node.entries is not None:
        inner = _inside(annotation, dict)
        fields = _fields(annotation)
        return {key: fit(each, fields.get(key, inner)) for key, each in node.entries.items()}
    if node.items is not None:
        inner = _inside(annotation, list, tuple)
        return [fit(each, inner) for each in node.items]
    if node.plain is None or node.is_null:
        return node.scalar
    is_choice = any(node.plain in get_args(k) for k in members(annotation) if _is_literal(k))
    return node.plain if is_choice or wants_text(annotation) else node.scalar


def _inside(annotation: object, *containers: type) -> object:
    """The annotation of what a container holds; Any where it says nothing."""
    for kind in members(annotation):
        if get_origin(kind) in containers:
            return get_args(kind)[-1]
    return Any


def _fields(annotation: object) -> Mapping[str, object]:
    """What the keys of a mapping may hold, where a model says it."""
    for kind in members(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return {key: field.annotation for key, field in kind.model_fields.items()}
    return {}


def _is_literal(kind: object) -> bool:
    return get_origin(kind) is Literal
