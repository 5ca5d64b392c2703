"""Writes a configuration as YAML that reads back to the same values. It knows no files and no secrets.

Leaves are written as JSON, which is YAML; words that cannot be mistaken for anything else stand unquoted, and
what a YAML 1.1 reader would take otherwise (a date, `no`, `1e-4` without a dot) is written so that it cannot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import cast

from pydantic import BaseModel

from hone.config.base import Section
from hone.config.values import plain_scalar

_WORD = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*")
_WIDEST = 40  # characters before a comment
_TRUTH_IN_YAML_1_1 = {"y", "n", "yes", "no", "on", "off"}


def to_yaml(config: BaseModel, *, origins: Mapping[str, str] | None = None) -> str:
    """The whole configuration, every key, as YAML; with `origins`, where each value came from as a comment."""
    lines = list(_lines(config, "", origins or {}))
    width = min(max(len(text) for text, _ in lines), _WIDEST)
    rows = (f"{text:<{width}}  # {note}" if note else text for text, note in lines)
    return "\n".join(rows) + "\n"


def _lines(
    section: BaseModel, prefix: str, origins: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Each line with its note, depth first."""
    indent = "  " * prefix.count(".")
    plain = section.model_dump()
    for key, value in section:
        name = f"{prefix}{key}"
        if isinstance(value, Section):
            yield f"{indent}{key}:", ""
            yield from _lines(value, f"{name}.", origins)
        else:
            said = [origins[name]] if name in origins else []
            said += [
                f"{k.removeprefix(f'{name}.')}: {v}"
                for k, v in origins.items()
                if k.startswith(f"{name}.")
            ]
            yield f"{indent}{key}: {_leaf(plain[key])}", ", ".join(said)


def flat_yaml(values: Mapping[str, object]) -> str:
    """Plain values by key as YAML, a line each, that readers of YAML 1.1 and 1.2 take alike."""
    return "".join(f"{key}: {_leaf(value)}\n" for key, value in values.items())


def _leaf(value: object) -> str:
    if isinstance(value, str):
        is_word = _WORD.fullmatch(value) and plain_scalar(value).scalar == value
        is_safe = is_word and value.lower() not in _TRUTH_IN_YAML_1_1
        return value if is_safe else _quoted(value)
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value).items()
        return "{" + ", ".join(f"{_leaf(key)}: {_leaf(each)}" for key, each in entries) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_leaf(each) for each in cast("list[object]", value)) + "]"
    text = json.dumps(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text


def _quoted(text: str) -> str:
    """A double-quoted scalar; what no reader can be trusted with (control characters, U+2028) is escaped."""
    escaped = (
        char if char.isprintable() else _escape(char)
        for char in json.dumps(text, ensure_ascii=False)
    )
    return "".join(escaped)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
