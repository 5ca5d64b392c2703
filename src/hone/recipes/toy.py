"""The quickstart's task: a note in free words becomes one line of a calendar. It knows no model.

    "Remind me to call Anna about the boat on March 5, 2031 at 9 am"  ->  "2031-03-05 09:00 | Anna | boat"

No pair of person and thing of a held-out row stands in a training row, and no note is written twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from hone.recipes.town import (
    PEOPLE,
    THINGS,
    any_day,
    any_hour,
    spoken_day,
    spoken_hour,
    written_day,
    written_hour,
)

EXAMPLE: Final = "Remind me to call Anna about the boat on March 5, 2031 at 9 am."
_NOTES: Final = (
    "Remind me to {verb} {who} about the {what} on {day} at {hour}.",
    "On {day} at {hour} I should {verb} {who} about the {what}.",
    "I hear that {who} wants to talk about the {what}: {day}, {hour}.",
    "Please note: {verb} {who} on {day} at {hour}, it is about the {what}.",
    "At {hour} on {day}, {verb} {who} about the {what}.",
    "The {what}! I must {verb} {who} about it on {day} at {hour}.",
    "{day}, {hour}: {verb} {who} about the {what}.",
    "Do not forget the {what}. I promised to {verb} {who} at {hour} on {day}.",
)
_VERBS: Final = ("call", "ask", "meet", "visit", "tell")
_HELD_OUT_PAIRS: Final = 0.2  # share of all pairs of a person and a thing


@dataclass(frozen=True)
class Row:
    """A note and the line that it should become."""

    note: str
    line: str
    pair: tuple[str, str]  # person and thing

    def as_messages(self) -> dict[str, Any]:
        """The row as `hone train` reads it."""
        return {
            "messages": [
                {"role": "user", "content": self.note},
                {"role": "assistant", "content": self.line},
            ]
        }


@dataclass(frozen=True)
class Rows:
    """Rows to train on, to watch while training, and to judge by at the end."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]


def toy_rows(*, train: int, validation: int, test: int, seed: int) -> Rows:
    """Rows drawn by `seed`; pairs of validation and test never occur in training."""
    random = Random(f"rows {seed}")
    pairs = [(who, what) for who in PEOPLE for what in THINGS]
    random.shuffle(pairs)
    held_out = set(pairs[: int(_HELD_OUT_PAIRS * len(pairs))])
    inside: list[Row] = []
    outside: list[Row] = []
    notes: set[str] = set()
    while len(inside) < train or len(outside) < validation + test:
        row = _draw(random)
        if row.note not in notes:
            notes.add(row.note)
            (outside if row.pair in held_out else inside).append(row)
    return Rows(
        tuple(inside[:train]),
        tuple(outside[:validation]),
        tuple(outside[validation : validation + test]),
    )


def file_text(rows: Iterable[Row]) -> str:
    """The rows as JSONL, one object a line."""
    return "".join(json.dumps(row.as_messages(), ensure_ascii=False) + "\n" for row in rows)


def _draw(random: Random) -> Row:
    who, what = random.choice(PEOPLE), random.choice(THINGS)
    day, hour = any_day(random), any_hour(random)
    note = random.choice(_NOTES).format(
        verb=random.choice(_VERBS),
        who=who,
        what=what,
        day=spoken_day(day),
        hour=spoken_hour(hour),
    )
    if random.random() < 0.5:
        note = note.removesuffix(".")
    return Row(note, f"{written_day(day)} {written_hour(hour)} | {who} | {what}", (who, what))
