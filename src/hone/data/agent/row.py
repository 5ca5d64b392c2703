"""One agent row: turns of from/value and a system text. It knows their form, not what is right or wrong in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, cast

from hone.data.messages import kind
from hone.errors import DataError, nearest

ROLES: Final = ("human", "gpt", "function_call", "observation")
ANSWERS: Final = ("gpt", "function_call")


@dataclass(frozen=True, slots=True)
class Turn:
    """Who says what. A `function_call` says JSON, with a think block before it or without."""

    role: str
    value: str
    beside: tuple[tuple[str, Any], ...] = ()
    """Other keys of the turn, which are carried along."""

    def saying(self, value: str) -> Turn:
        """The same turn with another text."""
        return replace(self, value=value)


@dataclass(frozen=True, slots=True)
class AgentRow:
    """Turns in order, the system text if any, and the row's other columns as they stood."""

    turns: tuple[Turn, ...]
    system: str | None
    columns: dict[str, Any]

    def with_turns(self, turns: list[Turn]) -> AgentRow:
        """The same row with other turns. Raises DataError where none is left."""
        if not turns:
            raise DataError("no turn is left")
        return replace(self, turns=tuple(turns))

    def to_json(self) -> dict[str, Any]:
        """The row as it is written: its columns in their order, the changed ones in their place."""
        told = dict(self.columns)
        told["conversations"] = [
            {"from": one.role, "value": one.value, **dict(one.beside)} for one in self.turns
        ]
        if self.system is not None:
            told["system"] = self.system
        return told


def read_row(value: dict[str, Any]) -> tuple[AgentRow, bool]:
    """The row, and whether its system text stood in a turn. Raises DataError for what is no agent row."""
    said = value.get("conversations")
    if not isinstance(said, list) or not said:
        found = (
            kind(cast("object", said))
            if "conversations" in value
            else ", ".join(map(repr, value)) or "no keys"
        )
        raise DataError(
            f"'conversations' is a list of turns, and not empty; found {found}",
            remedy='write {"conversations": [{"from": "human", "value": "..."}], "system": "..."}',
        )
    listed = cast("list[Any]", said)
    system: object = value.get("system")
    first = cast("dict[str, Any]", listed[0]) if isinstance(listed[0], dict) else {}
    in_turn = first.get("from") == "system"
    if in_turn:
        system, listed = first.get("value"), listed[1:]
    if system is not None and not isinstance(system, str):
        raise DataError(f"the system text is text; found {kind(system)}")
    turns = tuple(_turn(one, i) for i, one in enumerate(listed, start=int(in_turn)))
    return AgentRow(turns, system, value), in_turn


def _turn(value: object, number: int) -> Turn:
    where = f"/conversations/{number}"
    if not isinstance(value, dict):
        raise DataError(f"a turn is an object; found {kind(value)}", where=where)
    told = cast("dict[str, Any]", value)
    role, text = told.get("from"), told.get("value")
    if role not in ROLES:
        raise DataError(
            f"unknown role {role!r}", where=f"{where}/from", remedy=nearest(str(role), ROLES)
        )
    if not isinstance(text, str):
        raise DataError(f"the value of a turn is text; found {kind(text)}", where=f"{where}/value")
    beside = tuple((key, one) for key, one in told.items() if key not in ("from", "value"))
    return Turn(cast("str", role), text, beside)
