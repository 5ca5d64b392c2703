"""Takes secrets out of a text that is about to be shown or kept. It knows names of variables, no service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from hone.config.surroundings import is_secret

HIDDEN: Final = "***"
_SHORTEST: Final = 4  # characters; what is shorter would blot out half of any text
_USER: Final = re.compile(r"(://)[^/@\s]*@")
_QUERY: Final = re.compile(
    r"([?&][^=&\s]*(?:token|key|secret|passw)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE
)


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """The text, with `***` for each value of a variable that is named like a secret, and for users and passwords in
    addresses."""
    values = {value for name, value in environment.items() if is_secret(name)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    text = _USER.sub(rf"\1{HIDDEN}@", text)
    return _QUERY.sub(rf"\1{HIDDEN}", text)
