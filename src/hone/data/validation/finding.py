"""One thing that is wrong with a row or a file: where, what, found, allowed, remedy. It knows no rule."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, cast

from hone.data.values import kind
from hone.errors import DataError

_KEYS_LISTED: Final = 8
_WHERE: Final = re.compile(r":(\d+)(?: (/\S*))?$")


@dataclass(frozen=True, slots=True)
class Finding:
    """`line` is 1-based, or 0 where the file as a whole is meant; `pointer` is a JSON pointer, or empty."""

    line: int
    pointer: str
    what: str
    found: str
    allowed: str
    remedy: str

    @classmethod
    def of(cls, error: DataError, origin: str, line: int, value: object = None) -> Finding:
        """What an error says of the row at `origin`, which holds `value`, None where it could not be parsed."""
        pointer = (error.where or "").removeprefix(origin).strip()
        remedy = error.remedy or "repair the row, or remove it"
        wanted, _, found = error.what.partition("; found ")
        if not found and value is not None:
            found = _at(value, pointer)
        _, _, allowed = remedy.partition("allowed: ")
        if not allowed and "; found " in error.what:
            allowed = wanted
        return cls(line, pointer, error.what, found, allowed or remedy, remedy)

    @classmethod
    def of_file(cls, error: DataError) -> Finding:
        """What an error says that ended the reading of a file; it may name a line all the same."""
        place = _WHERE.search(error.where or "")
        line, pointer = (int(place[1]), place[2] or "") if place else (0, "")
        return replace(cls.of(error, error.where or "", line), pointer=pointer)

    def sentence(self) -> str:
        """The finding in one line, without its line number."""
        place = f" at {self.pointer}" if self.pointer else ""
        found = f"; found {self.found}" if self.found and self.found not in self.what else ""
        return f"{self.what}{place}{found}; {self.remedy}".replace("\n", " ")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; the line is null where the file as a whole is meant."""
        return asdict(self) | {"line": self.line or None}

    def to_list(self) -> list[Any]:
        """For another process."""
        return [self.line, self.pointer, self.what, self.found, self.allowed, self.remedy]


def _at(value: object, pointer: str) -> str:
    """What stands at a pointer, in words; what is absent, or lies deeper than is known, is told by the keys around it."""
    for name in pointer.split("/")[1:]:
        if isinstance(value, dict):
            inner = cast("dict[str, Any]", value)
            if name not in inner:
                return _keys(inner)
            value = inner[name]
        elif isinstance(value, list) and name.isdigit():
            listed = cast("list[Any]", value)
            if int(name) >= len(listed):
                return f"{len(listed)} elements"
            value = listed[int(name)]
        else:
            break
    if isinstance(value, dict):
        return _keys(cast("dict[str, Any]", value))
    return kind(cast("object", value))


def _keys(value: dict[str, Any]) -> str:
    names = [repr(key)[:40] for key in value]
    more = f" and {len(names) - _KEYS_LISTED} more" if len(names) > _KEYS_LISTED else ""
    return f"the keys {', '.join(names[:_KEYS_LISTED])}{more}" if names else "no keys"
