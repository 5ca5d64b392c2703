"""Whether many rows of JSON at once lost no key to an equal one. It parses nothing."""

from __future__ import annotations

from typing import Final

import numpy as np

_QUOTE: Final = ord('"')
_COLON: Final = ord(":")
_BACKSLASH: Final = ord("\\")
PAD: Final = b"   "
"""What stands before the rows, so that each byte has three before it."""

UInt8 = np.ndarray[tuple[int], np.dtype[np.uint8]]


def keep_keys(text: UInt8, keys: int) -> bool:
    """Whether rows that hold `keys` keys after parsing surely lost none; False means: look at each.

    `text` is all of their bytes after a `PAD`.

    As in `hone.data.strict.keeps_keys`, each key is counted by the colon behind its closing quote, and text can only
    add to the count. So if the count of all rows together is no higher than their keys, it is so for each of them.
    """
    at = np.flatnonzero(text == _COLON)
    one, two, three = text[at - 1], text[at - 2], text[at - 3]
    quoted = one == _QUOTE
    # Escaped by the one backslash before it, the quote stands inside of a text.
    escaped = quoted & (two == _BACKSLASH) & (three != _BACKSLASH)
    # Space between a quote and its colon is rare enough to be left to a closer look.
    spaced = (one <= ord(" ")) & ((two == _QUOTE) | (two <= ord(" ")))
    if spaced.any():
        return False
    return int(np.count_nonzero(quoted)) - int(np.count_nonzero(escaped)) == keys
