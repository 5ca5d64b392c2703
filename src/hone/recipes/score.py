"""Replies judged against what was expected, one by one. It knows no model and no task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hone.infer.completer import Completer, Messages, Sampling


@dataclass(frozen=True)
class Judged:
    """One held-out row: what was asked, what was expected, what came."""

    asked: str
    expected: str
    got: str

    @property
    def matches(self) -> bool:
        """Whether both are the same text, however their words are spaced."""
        return normalised(self.expected) == normalised(self.got)


@dataclass(frozen=True)
class Score:
    """All held-out rows, judged."""

    rows: tuple[Judged, ...]

    @cached_property
    def num_matches(self) -> int:
        """Rows whose reply is what was expected."""
        return sum(row.matches for row in self.rows)

    @property
    def exact_match(self) -> float:
        """Share of rows whose reply is what was expected, 0 to 1; 0 where there are none."""
        return self.num_matches / len(self.rows) if self.rows else 0.0


def score(completer: Completer, rows: Sequence[Messages], *, max_tokens: int) -> Score:
    """Greedy replies to every row's messages but the last, judged against that last one."""
    sampling = Sampling(max_tokens=max_tokens)
    replies = completer.replies([row[:-1] for row in rows], sampling=sampling)
    return Score(
        tuple(
            Judged(str(row[-2]["content"]), str(row[-1]["content"]), reply.text)
            for row, reply in zip(rows, replies, strict=True)
        )
    )


def normalised(text: str) -> str:
    """The text with single spaces between its words and none around it."""
    return " ".join(text.split())
