"""Word documents (.docx) to passages, by python-docx: paragraphs and the rows of tables, in order."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hone.data.documents.passage import Passage, Unreadable

MOST_BYTES: Final = 512 * 2**20
"""Most that the parts of a document may come to when unpacked."""
_MOST_RATIO: Final = 200
_SMALL_BYTES: Final = 2**20
_OLD_FORMAT: Final = (
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # OLE: a .doc, or a .docx behind a password
)


def word_passages(path: Path) -> Iterator[Passage]:
    """Its paragraphs, and each row of a table as one. Raises Unreadable."""
    _check_package(path)
    import docx

    try:
        opened: Any = docx.Document(str(path))
        blocks = list(opened.iter_inner_content())
    except Exception as error:  # whatever a broken part makes python-docx or lxml raise
        raise Unreadable(
            "the document is broken", "open it in Word and save it again", _first_line(error)
        ) from error
    number = 0
    for block in blocks:
        for text in _texts(block):
            if stripped := text.strip():
                number += 1
                yield Passage(stripped, "paragraph", number)


def _texts(block: Any) -> Iterator[str]:
    if hasattr(block, "rows"):
        for row in block.rows:
            cells: list[str] = []
            for cell in row.cells:  # a cell over several columns is told once
                text = " ".join(str(cell.text).split())
                if text and (not cells or cells[-1] != text):
                    cells.append(text)
            yield " | ".join(cells)
    else:
        yield str(block.text)


def _check_package(path: Path) -> None:
    """Refuse what is no package, and one that unpacks to far more than it is."""
    with path.open("rb") as file:
        if file.read(8) == _OLD_FORMAT:
            raise Unreadable(
                "behind a password, or in Word's old format (.doc)",
                "open it in Word and save it as .docx",
            )
    try:
        with zipfile.ZipFile(path) as package:
            parts = package.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise Unreadable(
            "not a Word document", "open it in Word and save it again", _first_line(error)
        ) from error
    unpacked = sum(part.file_size for part in parts)
    packed = max(1, sum(part.compress_size for part in parts))
    if unpacked > MOST_BYTES or (unpacked > _SMALL_BYTES and unpacked / packed > _MOST_RATIO):
        raise Unreadable(
            "it unpacks to more than a document does",
            "if it is one, save its text as .txt",
            f"{unpacked:,} bytes, from {packed:,}",
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
