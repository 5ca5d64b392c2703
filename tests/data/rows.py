"""Rows as they stand in a file: read into what they come to, or refused with file, line and remedy."""

from __future__ import annotations

from typing import Any

import pytest

from hone.data.example import Origin
from hone.data.formats import RowFormat
from hone.data.reader import Row
from hone.errors import DataError

U = {"role": "user", "content": "hi"}
A = {"role": "assistant", "content": "ho"}
S = {"role": "system", "content": "be"}


def read(value: Any, form: RowFormat | None = None, line: int = 1, **how: Any) -> Any:
    """What the row comes to. `how` as RowFormat takes it."""
    return (form or RowFormat(**how)).read(Row(value, Origin("rows.jsonl", line)))


def refusal(value: Any, pointer: str = "", **how: Any) -> DataError:
    """The refusal of a row, which must name the place and a remedy."""
    with pytest.raises(DataError) as caught:
        read(value, **how)
    error = caught.value
    assert error.where == ("rows.jsonl:1" + (f" {pointer}" if pointer else ""))
    assert error.remedy
    return error


def said(content: Any) -> list[tuple[str, str]]:
    """Role and text of each message."""
    return [(one.role, one.content) for one in content.messages]
