"""A paragraph of a document with its place, and a document that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """One paragraph. `place` says where it stands, in the document's own units."""

    text: str
    unit: str
    """`paragraph`, `page` or `line`."""
    number: int
    """From 1."""


class Unreadable(Exception):
    """A document of which nothing can be taken: why, and what to do. The other documents go on.

    Documents with one `reason` are counted together; `detail` is this one's own.
    """

    def __init__(self, reason: str, remedy: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.detail = detail


def place_of(first: Passage, last: Passage) -> str:
    """Such as `paragraph 3` or `pages 2-4`."""
    if first.number == last.number:
        return f"{first.unit} {first.number}"
    return f"{first.unit}s {first.number}-{last.number}"
