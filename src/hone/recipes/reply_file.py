"""Replies as text, a line each, whatever they hold: what is written reads back as it was. It knows no model.

In a reply a backslash stands as two, a line feed as `\\n`, a carriage return as `\\r`, a tab stays; every other character
that some program takes for the end of a line, or that is no text at all (a lone surrogate), stands as `\\uXXXX`. So a
reply is one line to any reader, and its line number is the prompt's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from hone.errors import DataError

_SHORT: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_WRITTEN: Final = {"\\": "\\", "n": "\n", "r": "\r"}
# What str.splitlines cuts at, the byte order mark, and surrogates, which UTF-8 cannot hold.
_UNSAFE: Final = re.compile("[\\\\\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029\ufeff\ud800-\udfff]")
_ESCAPE: Final = re.compile(r"\\(?:([\\nr])|u([0-9a-f]{4}))|\\")


def as_line(reply: str) -> str:
    """The reply on one line, without the line feed at its end."""
    return _UNSAFE.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", reply)


def from_line(line: str) -> str:
    """The reply that `as_line` wrote. Raises DataError for a line that it never writes."""

    def plain(found: re.Match[str]) -> str:
        if found[1]:
            return _WRITTEN[found[1]]
        if found[2]:
            return chr(int(found[2], 16))
        raise DataError(
            "a backslash stands alone",
            where=repr(line[:80]),
            remedy=r"a backslash is written as \\",
        )

    return _ESCAPE.sub(plain, line)


def as_text(replies: Iterable[str]) -> str:
    """A file's content: a line for each reply."""
    return "".join(as_line(reply) + "\n" for reply in replies)


def from_text(text: str) -> list[str]:
    """The replies in a file's content. Raises DataError."""
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [from_line(line) for line in lines]
