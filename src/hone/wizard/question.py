"""A question of the wizard, as data: what is asked, what may be answered, when it applies. It knows no face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hone.wizard.answers import Answers

Value = str | int | float | bool | list[Any]
"""A checked answer. It is plain JSON, so that it can wait in a file."""

Kind = Literal["choice", "text", "texts", "conversations"]


@dataclass(frozen=True)
class Option:
    """One of several answers: its value, the words that a reader sees, and a line about it."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Taken:
    """An answer that was accepted."""

    value: Value
    notes: tuple[str, ...] = ()
    """What the user should know of it, a sentence each."""
    rows: int | None = None
    """How many rows it names, where it names rows."""


def _no_options(_: Answers) -> Sequence[Option]:
    return ()


def _no_default(_: Answers) -> Value | None:
    return None


def _always(_: Answers) -> bool:
    return True


@dataclass(frozen=True)
class Question:
    """One question. `read` makes a checked answer of what was typed, or raises HoneError with a remedy."""

    key: str
    """Its name in a file of answers and in JSON."""
    flag: str
    """Its name on the command line."""
    text: str
    read: Callable[[Any, Answers], Taken]
    kind: Kind = "text"
    hint: str = ""
    options: Callable[[Answers], Sequence[Option]] = _no_options
    other: str | None = None
    """The last option, which asks for a text of one's own; None where the options are all there is."""
    default: Callable[[Answers], Value | None] = _no_default
    """What Enter and `--yes` take; None where nobody but the user can know."""
    applies: Callable[[Answers], bool] = _always
    is_asked: bool = True
    """False for what has a flag and a default, and is no question to a newcomer."""
