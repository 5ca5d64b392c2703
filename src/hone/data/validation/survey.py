"""What a file of rows is: shapes, roles, turns, lengths, twins, and what a user should look at. It knows no tokenizer.

Lengths and remarks are told to it, by whoever has measured them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from hone.data.control import strings_in
from hone.data.conversation import Content, Conversation, Document
from hone.data.ledger import Tally
from hone.data.validation.near import NearTexts
from hone.data.validation.oddities import form_of, oddities

_HASHED: Final = 2**64 - 1


@dataclass
class Histogram:
    """How often numbers fall between powers of two; its quantiles are exact."""

    values: array[int] = field(default_factory=lambda: array("q"))

    def add(self, value: int) -> None:
        """One more number."""
        self.values.append(value)

    def to_json(self) -> dict[str, Any]:
        """Least, median, 95th of 100, most, sum; and how many numbers are at most `up_to` and above the one before."""
        if not self.values:
            return {"count": 0, "bins": []}
        found = np.frombuffer(self.values, dtype=np.int64)
        tops = np.maximum(1, 2 ** np.ceil(np.log2(np.maximum(found, 1))).astype(np.int64))
        edges, counts = np.unique(tops, return_counts=True)
        bins = zip(edges.tolist(), counts.tolist(), strict=True)
        return {
            "count": len(found),
            "least": int(found.min()),
            "median": int(np.median(found)),
            "p95": int(np.quantile(found, 0.95, method="higher")),
            "most": int(found.max()),
            "sum": int(found.sum()),
            "bins": [{"up_to": top, "rows": rows} for top, rows in bins],
        }


@dataclass
class Measure:
    """One row's length, how much of it is trained, and how much of that the limit takes; in `Survey.unit`."""

    length: int
    """Of the longest Example, where a row becomes several."""
    total: int
    trained: int
    is_too_long: bool = False
    lost: int = 0
    remarks: tuple[str, ...] = ()


class Survey:
    """Gathers what rows are, one after the other; `unit` is what lengths count."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.shapes: Counter[str] = Counter()
        self.roles: Counter[str] = Counter()
        self.turns = Histogram()
        self.lengths = Histogram()
        self.total = 0
        self.trained = 0
        self.lost = 0
        self.findings: dict[str, Tally] = {}
        self._hashes = array("Q")
        self._lines = array("q")
        self._near = NearTexts()
        self._forms: Counter[str] = Counter()
        self._overlap: set[int] = set()

    def add(self, shape: str, content: Content, measure: Measure) -> None:
        """One more row."""
        line = content.origin.line
        self.shapes[shape] += 1
        self.lengths.add(measure.length)
        self.total += measure.total
        self.trained += measure.trained
        self._remember(content, line)
        texts: list[str] = []
        if isinstance(content, Conversation):
            self.turns.add(len(content.messages))
            self.roles.update(message.role for message in content.messages)
            texts = strings_in([one.as_template() for one in content.messages])
            if content.messages[-1].role != "assistant":
                self.note("no-last-reply", line)
        elif isinstance(content, Document):
            texts = [content.text]
        self._look_at(texts, line)
        for remark in dict.fromkeys((*content.remarks, *measure.remarks)):
            self.note(remark, line)
        if measure.is_too_long:
            self.note("too-long", line)
        if measure.lost:
            self.lost += measure.lost
            self.note("loses-trained", line)
            if measure.lost >= measure.trained:
                self.note("loses-all", line)

    def note(self, code: str, line: int) -> None:
        """Something that a user should look at."""
        self.findings.setdefault(code, Tally()).add(line)

    def compare(self, others: Iterable[Content]) -> int:
        """Find rows that the other file, which is held out, has as well, or nearly; how many rows it has.

        To be called once, after the last row.
        """
        count = 0
        known = np.sort(np.frombuffer(self._hashes, dtype=np.uint64))
        for content in others:
            count += 1
            line = content.origin.line
            name = np.uint64(content.content_hash())
            at = int(np.searchsorted(known, name))
            if at < len(known) and known[at] == name:
                self.note("overlap", line)
                self._overlap.add(line)
            self._near.add(-line, _said(content))
        return count

    def finish(self) -> None:
        """Find rows that stand more than once. To be called once, after everything else."""
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        lines = np.frombuffer(self._lines, dtype=np.int64)
        _, first, place = np.unique(hashes, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[place] < np.arange(len(hashes)))
        twins = set(lines[again].tolist())
        for line in lines[again].tolist():
            self.note("duplicate", line)
        for label, earlier in self._near.pairs():
            if label > 0 and label not in twins:
                self.note("near-duplicate", label)
            elif label < 0 < earlier and -label not in self._overlap:
                self.note("near-overlap", -label)
        if len(self._forms) > 1 or "mixed" in self._forms:
            self.findings["mixed-form"] = Tally(1)
        if self._near.left_out:
            self.findings["near-left-out"] = Tally(self._near.left_out)

    @property
    def rows(self) -> int:
        """Rows surveyed."""
        return len(self._lines)

    def _remember(self, content: Content, line: int) -> None:
        self._hashes.append(content.content_hash() & _HASHED)
        self._lines.append(line)
        self._near.add(line, _said(content))

    def _look_at(self, texts: list[str], line: int) -> None:
        kinds: set[str] = set()
        for text in texts:
            kinds.update(oddities(text))
            if form := form_of(text):
                self._forms[form] += 1
        for kind in sorted(kinds):
            self.note(f"unicode-{kind}", line)


def _said(content: Content) -> str:
    """All that a row says, as one text."""
    if isinstance(content, Conversation):
        return "\n".join(
            " ".join(map(str, (one.role, one.content, one.reasoning or "", *one.tool_calls)))
            for one in content.messages
        )
    if isinstance(content, Document):
        return content.text
    return " ".join(map(str, content.input_ids.tolist()))
