"""Text of strangers made safe for a terminal. It knows no colours."""

from __future__ import annotations

import re
from typing import Final

# C0 and C1 controls but tab and newline; marks that turn the direction of text; lone surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """`text` with every character that could steer a terminal spelled as an escape, such as `\\x1b`."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)
