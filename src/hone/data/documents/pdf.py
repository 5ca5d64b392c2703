"""PDF files to passages, by pypdf: the text of each page, its lines joined into paragraphs."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

from hone.data.documents.passage import Passage, Unreadable
from hone.data.documents.plain import paragraphs

MOST_BYTES: Final = 1024 * 2**20
"""Largest file that is opened."""
_MOST_CHARACTERS: Final = 100_000_000
_MOST_PAGES: Final = 50_000
_HYPHEN: Final = re.compile(r"(?<=\w)-\n(?=[a-zà-ÿ])")
_ENDS: Final = re.compile(r"[.!?:;…\"'»”)\]]$")
_SHORT_LINE: Final = 0.6
"""A line this much shorter than the page's longest, and ended, ends its paragraph."""


def pdf_passages(path: Path) -> Iterator[Passage]:
    """The paragraphs of each page, with the page's number. Raises Unreadable."""
    if path.stat().st_size > MOST_BYTES:
        raise Unreadable(f"larger than {MOST_BYTES:,} bytes", "split it, or save its text as .txt")
    pages = characters = 0
    has_text = False
    for pages, text in enumerate(_pages(path), 1):
        characters += len(text)
        if characters > _MOST_CHARACTERS or pages > _MOST_PAGES:
            raise Unreadable("it unpacks to more text than a document has", "split it")
        for one in paragraphs(joined(text)):
            has_text = True
            yield Passage(one, "page", pages)
    if not has_text:
        raise Unreadable(
            "no text on its pages: a scan",
            "read it with OCR first, e.g. ocrmypdf IN OUT",
            f"{pages:,} pages",
        )


def joined(text: str) -> str:
    """A page's lines as paragraphs: words parted at a line's end are whole again, and a blank line stands where
    one was or where a short line ends a sentence."""
    text = _HYPHEN.sub("", text.replace("\u00ad\n", "").replace("\r", ""))
    lines = [line.strip() for line in text.split("\n")]
    longest = max(map(len, lines), default=0)
    out: list[str] = []
    for line in lines:
        out.append(line)
        if not line or (len(line) < _SHORT_LINE * longest and _ENDS.search(line)):
            out.append("\n\n")
        else:
            out.append(" ")
    return "".join(out)


def _pages(path: Path) -> Iterator[str]:
    import pypdf

    with _quiet():
        try:
            reader: Any = pypdf.PdfReader(str(path))
            locked = reader.is_encrypted and not int(reader.decrypt(""))
        except Exception as error:  # a broken file may raise anything
            raise _broken(error) from error
        if locked:
            raise Unreadable("behind a password", "save it without one, e.g. qpdf --decrypt IN OUT")
        try:
            for page in reader.pages:
                yield str(page.extract_text() or "")
        except Unreadable:
            raise
        except GeneratorExit:
            raise
        except Exception as error:
            raise _broken(error) from error


def _broken(error: BaseException) -> Unreadable:
    if type(error).__name__ == "DependencyError":
        return Unreadable(
            "behind a cipher that needs the package cryptography", "save it without a password"
        )
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return Unreadable("the file is broken", "print it to a new PDF, or save its text as .txt", said)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep pypdf's own log lines off the screen; what matters is said by us."""
    logger = logging.getLogger("pypdf")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
