"""Passages cut into chunks: whole paragraphs while they fit, a long one at the end of a sentence. It knows no files.

Lengths are in characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from hone.data.documents.passage import Passage, place_of

CUT_AFTER: Final = 1200
"""A chunk is not closed below this length while the document goes on: the next paragraph is cut instead."""
_BETWEEN: Final = "\n\n"
_SENTENCE_END: Final = re.compile(r"[.!?…。！？]['\"»”’)\]]*(?=\s|$)|[。！？]|\n")


@dataclass(frozen=True)
class Sizes:
    """How text is cut."""

    chunk_size: int = 4000
    """Longest chunk."""
    overlap: int = 0
    """How much of a chunk's end stands at the beginning of the next, at most; whole words. At most half of a chunk."""
    min_text_length: int = 200
    """Shorter chunks are left out."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document, and where it stands."""

    text: str
    place: str


def cut(passages: Iterable[Passage], sizes: Sizes) -> Iterator[Chunk]:
    """The chunks of one document, in order. All of the text is in them; what overlaps is in two."""
    held: list[Passage] = []
    length = 0
    carried = ""

    def close() -> Chunk:
        text = _BETWEEN.join([*([carried] if carried else []), *(one.text for one in held)])
        return Chunk(text, place_of(held[0], held[-1]))

    for passage in passages:
        rest = passage
        while rest.text:
            room = sizes.chunk_size - length - (len(_BETWEEN) if length else 0)
            if len(rest.text) <= room:
                part, rest = rest, replace(rest, text="")
            elif length < min(CUT_AFTER, sizes.chunk_size // 2) or not held:
                head, tail = _parted(rest.text, max(1, room))
                part, rest = replace(rest, text=head), replace(rest, text=tail)
            else:
                part = None
            if part is not None:
                length += len(part.text) + (len(_BETWEEN) if length else 0)
                held.append(part)
            if rest.text:
                done = close()
                yield done
                carried = _end(done.text, sizes.overlap)
                held, length = [], len(carried)
    if held:
        yield close()


def _parted(text: str, room: int) -> tuple[str, str]:
    """The longest beginning within `room`, ended at a sentence, else a word, else anywhere; and the rest."""
    least = room // 2
    ends = [m.end() for m in _SENTENCE_END.finditer(text, 0, room) if m.end() >= least]
    at = ends[-1] if ends else text.rfind(" ", least, room)
    if at <= 0:
        at = room
    return text[:at].rstrip(), text[at:].lstrip()


def _end(text: str, overlap: int) -> str:
    """The end of a text, from the beginning of a word, at most `overlap` long."""
    if not overlap or len(text) <= overlap:
        return ""
    tail = text[-overlap:]
    if text[-overlap - 1].isspace():
        return tail.lstrip()
    space = re.search(r"\s+", tail)
    return tail[space.end() :] if space else ""
