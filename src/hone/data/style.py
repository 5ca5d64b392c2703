"""A style laid over the system instruction of a row, once however often it is laid. It knows rows by their keys, and no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from hone.data.messages import kind, text_of
from hone.errors import DataError

Mode = Literal["prepend", "replace"]
_BETWEEN: Final = "\n\n"
_SYSTEM: Final = ("system", "developer")
_NO_PLACE: Final = {"text": "text", "pairs": "pair", "tokens": "input_ids"}

Edit = Callable[[str | None], str]


@dataclass(frozen=True)
class Style:
    """A system instruction put before the one that is there (`prepend`), or in its place (`replace`).

    `earlier` are styles that were laid over the same rows before; they are taken off first.
    """

    text: str
    mode: Mode = "prepend"
    earlier: tuple[str, ...] = ()

    def over(self, system: str | None) -> str:
        """The new system text; `over(over(x)) == over(x)`."""
        if self.mode == "replace":
            return self.text
        rest = self._without_styles(system or "")
        return f"{self.text}{_BETWEEN}{rest}" if rest else self.text

    def _without_styles(self, system: str) -> str:
        """What the system text was before any style."""
        while True:
            for style in (self.text, *self.earlier):
                if system == style:
                    return ""
                if system.startswith(style + _BETWEEN):
                    system = system[len(style) + len(_BETWEEN) :]
                    break
            else:
                return system


@dataclass(frozen=True)
class Styled:
    """A row with its style, the name of its shape, and its system text before and after."""

    row: dict[str, Any]
    shape: str
    before: str | None
    after: str


def lay_style(row: Mapping[str, Any], style: Style) -> Styled:
    """The row with the style over its system instruction; all else stays as it is.

    Raises DataError for a row of no shape that is known, of a shape without a place for a system instruction,
    or with something else in that place.
    """
    heard: list[str | None] = []

    def edit(system: str | None) -> str:
        heard.append(system)
        return style.over(system)

    for shape, (keys, change) in _SHAPES.items():
        if all(key in row for key in keys):
            changed = change(dict(row), edit)
            return Styled(changed, shape, heard[0], style.over(heard[0]))
    for shape, key in _NO_PLACE.items():
        if key in row:
            raise DataError(
                f"rows of shape {shape!r} have no place for a system instruction",
                remedy="write them as messages first: hone convert IN OUT --to messages",
            )
    raise DataError(
        f"the shape of the row is not known; found {', '.join(map(repr, row)) or 'no keys'}",
        remedy="write it as messages first: hone convert IN OUT --to messages 'data.columns={...}'",
    )


def _in_messages(row: dict[str, Any], edit: Edit) -> dict[str, Any]:
    turns = _turns(row["messages"], "/messages")
    if row.get("system") and not (turns and turns[0].get("role") in _SYSTEM):
        return _in_column(row, edit)
    row["messages"] = _in_turns(row["messages"], edit, "/messages")
    return row


def _in_log(row: dict[str, Any], edit: Edit) -> dict[str, Any]:
    logged = row["input"]
    if not isinstance(logged, dict) or "messages" not in logged:
        # `input` and `output` are columns of other shapes too, which name their instruction.
        raise DataError(f"the input of a log holds messages; found {kind(cast('object', logged))}")
    row["input"] = _in_messages(dict(cast("dict[str, Any]", logged)), edit)
    return row


def _in_conversations(row: dict[str, Any], edit: Edit) -> dict[str, Any]:
    """A system turn at the beginning counts before a system column, as its readers have it."""
    turns = _turns(row["conversations"], "/conversations")
    keys = _turn_keys(turns)
    if turns and turns[0].get(keys[0]) in _SYSTEM:
        row["conversations"] = _in_turns(turns, edit, "/conversations", *keys)
        return row
    return _in_column(row, edit)


def _in_prompt(row: dict[str, Any], edit: Edit) -> dict[str, Any]:
    if row.get("system") is None and isinstance(row["prompt"], list):
        row["prompt"] = _in_turns(cast("object", row["prompt"]), edit, "/prompt")
        return row
    return _in_column(row, edit)


def _in_column(row: dict[str, Any], edit: Edit) -> dict[str, Any]:
    system = row.get("system")
    text = edit(None if system is None else text_of(system, "/system"))
    if "system" in row:
        row["system"] = text
        return row
    return {"system": text, **row}


def _in_turns(
    value: object, edit: Edit, where: str, role: str = "role", content: str = "content"
) -> list[dict[str, Any]]:
    turns = _turns(value, where)
    if turns and turns[0].get(role) in _SYSTEM:
        said = turns[0].get(content)
        text = edit(None if said is None else text_of(said, f"{where}/0/{content}"))
        return [turns[0] | {content: text}, *turns[1:]]
    return [{role: "system", content: edit(None)}, *turns]


def _turn_keys(turns: list[dict[str, Any]]) -> tuple[str, str]:
    return ("from", "value") if turns and "from" in turns[0] else ("role", "content")


def _turns(value: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise DataError(f"a list of turns is wanted; found {kind(value)}", where=where)
    for i, one in enumerate(cast("list[object]", value)):
        if not isinstance(one, dict):
            raise DataError(f"a turn is an object; found {kind(one)}", where=f"{where}/{i}")
    return cast("list[dict[str, Any]]", value)


_SHAPES: Final[
    dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any], Edit], dict[str, Any]]]]
] = {
    "messages": (("messages",), _in_messages),
    "conversations": (("conversations",), _in_conversations),
    "prompt-completion": (("prompt", "completion"), _in_prompt),
    "turns": (("user", "assistant"), _in_column),
    "alpaca": (("instruction", "output"), _in_column),
    "log": (("input", "output"), _in_log),
}
