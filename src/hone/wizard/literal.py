"""Values as Python source, the way a formatter would leave them. It knows no script.

Every literal reads back to the very value (`ast.literal_eval`), whatever quotes, braces, backslashes or line ends
stand in it: that is what keeps an answer from ever becoming code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, cast

WIDTH: Final = 88
_STEP: Final = "    "
_SMALL: Final = 1e-3  # below it a number is written as 2e-4


def literal(value: object) -> str:
    """A text, a number, a truth value, None, or a list or dictionary of them, in one line."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return f"[{', '.join(map(literal, cast('list[Any]', value)))}]"
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value).items()
        return f"{{{', '.join(f'{literal(key)}: {literal(one)}' for key, one in entries)}}}"
    return repr(value)


def number(value: float) -> str:
    """A number as people write it: `2e-4`, `0.0072`, `1.0`."""
    if not 0 < abs(value) < _SMALL:
        return repr(value)
    return f"{Decimal(repr(value)).normalize():e}"


def laid_out(value: object, *, indent: int, before: int = 0, after: int = 1) -> str:
    """A literal over several lines where one would be too wide.

    `indent` is the depth, in steps of four, of the line that it begins in; `before` and `after` count what else
    stands in that line.
    """
    line = literal(value)
    if wide(line) + len(_STEP) * indent + before + after <= WIDTH or not value:
        return line
    inner, outer = _STEP * (indent + 1), _STEP * indent
    if isinstance(value, list):
        items = [
            f"{inner}{laid_out(one, indent=indent + 1)},\n" for one in cast("list[Any]", value)
        ]
        return f"[\n{''.join(items)}{outer}]"
    if isinstance(value, dict):
        entries: list[str] = []
        for key, one in cast("dict[Any, Any]", value).items():
            head = f"{literal(key)}: "
            entries.append(f"{inner}{head}{laid_out(one, indent=indent + 1, before=len(head))},\n")
        return f"{{\n{''.join(entries)}{outer}}}"
    return line


def call(name: str, arguments: Sequence[str], *, indent: int) -> str:
    """A call with an argument a line."""
    inner = _STEP * (indent + 1)
    return f"{name}(\n{''.join(f'{inner}{one},{chr(10)}' for one in arguments)}{_STEP * indent})"


def wide(text: str) -> int:
    """Columns that a text takes at most."""
    return sum(1 if char.isascii() or unicodedata.combining(char) else 2 for char in text)


def _text(value: str) -> str:
    """In double quotes, unless single ones spare backslashes."""
    quote = "'" if value.count('"') > value.count("'") else '"'
    return quote + "".join(_char(char, quote) for char in value) + quote


def _char(char: str, quote: str) -> str:
    if char in ("\\", quote):
        return f"\\{char}"
    return char if char.isprintable() else repr(char)[1:-1]
