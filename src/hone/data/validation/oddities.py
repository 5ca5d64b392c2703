"""Characters that are rarely meant: what kinds of them a text holds. It knows no rows."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

KINDS: Final = {
    "zero-width": "characters without width, such as U+200B: they split words unseen",
    "direction": "marks that turn the direction of text, such as U+202E: text is not what it looks like",
    "private-use": "private-use characters: they mean something only in one font",
    "control": "control characters other than tab and line ends, such as NUL or escape",
    "unassigned": "characters that Unicode has not assigned, or never will",
    "replacement": "U+FFFD: an earlier program could not read the text, and what it said is lost",
    "line-separator": "U+2028, U+2029 or U+0085: some programs end a line there",
    "surrogate": "half of a surrogate pair: it cannot be written as UTF-8",
}
"""Each kind with its sentence. `mixed-form` concerns rows as a whole."""

_ASCII_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PATTERNS: Final = {
    "zero-width": re.compile("[\u200b\u2060\ufeff\u180e\u00ad]"),
    "direction": re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]"),
    "private-use": re.compile("[\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd]"),
    "control": re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]"),
    "unassigned": re.compile("[\ufdd0-\ufdef\ufffe\uffff]"),
    "replacement": re.compile("\ufffd"),
    "line-separator": re.compile("[\u2028\u2029\u0085]"),
    "surrogate": re.compile("[\ud800-\udfff]"),
}
_ANY: Final = re.compile("|".join(one.pattern for one in _PATTERNS.values()))


def oddities(text: str) -> list[str]:
    """Kinds of odd characters that the text holds; joiners between letters and emoji are none."""
    if text.isascii():
        return ["control"] if _ASCII_CONTROL.search(text) else []
    if not _ANY.search(text):
        return []
    return [kind for kind, pattern in _PATTERNS.items() if pattern.search(text)]


def form_of(text: str) -> str:
    """The normal form of a text: "C" composed, "D" decomposed, "" where it is both, "mixed" where it is neither."""
    if text.isascii():
        return ""
    composed = unicodedata.is_normalized("NFC", text)
    decomposed = unicodedata.is_normalized("NFD", text)
    if composed:
        return "" if decomposed else "C"
    return "D" if decomposed else "mixed"
