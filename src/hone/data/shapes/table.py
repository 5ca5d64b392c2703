"""The table of shapes: what each is recognised by, what it may hold, and how it is read. It knows no row.

To add a shape: write how a row is read, from a `Given` to a Content, in a file here, and add a line to
`SHAPES`. What stands first wins where a row fits two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hone.data.conversation import Content
from hone.data.shapes.chat import conversations_row, is_log, log_row, messages_row
from hone.data.shapes.columns import (
    alpaca_row,
    answer_row,
    completion_row,
    pairs_row,
    prompt_completion_row,
    stands_alone,
    text_row,
    turns_row,
)
from hone.data.shapes.given import Given
from hone.data.shapes.sharegpt import is_sharegpt, sharegpt_row
from hone.data.shapes.tags import Tags
from hone.data.shapes.tokens import tokens_row

Fits = Callable[[Mapping[str, Any], Tags], bool]


def _any(value: Mapping[str, Any], tags: Tags) -> bool:
    """Rows that have the keys."""
    del value, tags
    return True


@dataclass(frozen=True)
class Shape:
    """One known shape: its name, the keys it must have, those it may have, and how it is read.

    `fits` tells shapes apart that have the same keys.
    """

    name: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    read: Callable[[Given], Content]
    fits: Fits = _any

    @property
    def keys(self) -> tuple[str, ...]:
        """All its keys."""
        return self.needs + self.may

    def recognises(self, value: Mapping[str, Any], tags: Tags) -> bool:
        """Whether a row under our names is of this shape."""
        return all(key in value for key in self.needs) and self.fits(value, tags)


_LISTED: Final = ("tools", "functions", "system", "loss_mask")
_ASKED: Final = ("system", "tools")


def _answer(question: str, answer: str) -> Shape:
    read = answer_row(question, answer)
    return Shape(f"{question}-{answer}", (question, answer), (*_ASKED, "input", "context"), read)


_ALL: Final = (
    Shape("messages", ("messages",), _LISTED, messages_row),
    Shape("prompt-completion", ("prompt", "completion"), _ASKED, prompt_completion_row),
    Shape("turns", ("user", "assistant"), _ASKED, turns_row),
    Shape("alpaca", ("instruction", "output"), ("input", "history", *_ASKED), alpaca_row),
    Shape("sharegpt", ("conversations",), _LISTED, sharegpt_row, is_sharegpt),
    Shape("conversations", ("conversations",), _LISTED, conversations_row),
    Shape("log", ("input",), ("output", "tools", "functions", "loss_mask"), log_row, is_log),
    _answer("question", "answer"),
    _answer("query", "response"),
    _answer("instruction", "response"),
    Shape("pairs", ("pair",), (), pairs_row),
    Shape(
        "tokens",
        ("input_ids",),
        ("labels", "weight", "loss_mask", "attention_mask", "source"),
        tokens_row,
    ),
    Shape("text", ("text",), ("source", "place"), text_row, stands_alone),
    Shape("completion", ("completion",), (), completion_row, stands_alone),
)

SHAPES: Final[Mapping[str, Shape]] = {shape.name: shape for shape in _ALL}
