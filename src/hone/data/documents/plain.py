"""Text, Markdown and JSONL files to passages. It knows no chunks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

from hone.data.documents.passage import Passage, Unreadable

_BLANK_LINE: Final = re.compile(r"\n[ \t]*\n\s*")
_KEYS: Final = ("text", "content", "body")


def paragraphs(text: str) -> Iterator[str]:
    """What stands between blank lines, without spaces at its ends."""
    for part in _BLANK_LINE.split(text.replace("\r\n", "\n").replace("\r", "\n")):
        if stripped := part.strip():
            yield stripped


def text_passages(path: Path) -> Iterator[Passage]:
    """The paragraphs of a text or Markdown file, UTF-8. Raises Unreadable."""
    for number, text in enumerate(paragraphs(_text(path)), 1):
        yield Passage(text, "paragraph", number)


def row_documents(path: Path) -> Iterator[tuple[int, list[Passage] | Unreadable]]:
    """The text of each line of a JSONL file, a document of its own, with the line's number.

    Raises Unreadable where the file is not UTF-8, after the lines before.
    """
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _row_passages(line, number)
        except UnicodeDecodeError as error:
            raise _not_utf_8(error) from error


def _row_passages(line: str, number: int) -> list[Passage] | Unreadable:
    try:
        return [Passage(text, "line", number) for text in paragraphs(_row_text(line))]
    except Unreadable as fault:
        return fault


def _row_text(line: str) -> str:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise Unreadable("not JSON", "mend the line", str(error)) from error
    said = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    text = next((said[key] for key in _KEYS if isinstance(said.get(key), str)), None)
    if text is None:
        raise Unreadable(
            f"no text under {', '.join(_KEYS)}",
            "rows that are conversations are trained as they are: name their file in data.sources",
        )
    return text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf_8(error) from error


def _not_utf_8(error: UnicodeDecodeError) -> Unreadable:
    return Unreadable(
        "not UTF-8", "save it as UTF-8: iconv -f LATIN1 -t UTF-8", f"byte {error.start}"
    )
