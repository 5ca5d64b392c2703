"""Known shapes of a row to a Conversation. It knows keys and types, not templates or tokens.

To add a shape: write `_read_<shape>(row, where) -> Conversation`, and add it to `SHAPES` with the keys
that it is recognised by.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hone.data.conversation import Conversation, Message
from hone.data.messages import Remarks, read_messages, read_tools, text_of
from hone.data.reader import Row
from hone.errors import ConfigError, DataError, nearest

Read = Callable[[Mapping[str, Any], str, Remarks], tuple[list[Message], Mapping[str, Any]]]

# Keys of a row that other tools write beside the conversation and that change nothing here.
_SILENT: Final = frozenset({"parallel_tool_calls"})


@dataclass(frozen=True)
class Shape:
    """One known shape: its name, the keys it must have, those it may have, and how it is read."""

    name: str
    needs: tuple[str, ...]
    may: tuple[str, ...]
    read: Callable[[Mapping[str, Any], str, Remarks], list[Message]]

    @property
    def keys(self) -> tuple[str, ...]:
        """All its keys."""
        return self.needs + self.may


class RowFormat:
    """How rows of one file become Conversations: settled by the first row, then demanded of every row.

    Raises ConfigError when `columns` cannot be meant, DataError for a row of another shape.
    """

    def __init__(self, name: str = "auto", columns: Mapping[str, str] | None = None) -> None:
        self._columns = dict(columns or {})
        self._shape: Shape | None = None if name == "auto" else SHAPES[name]
        known = {key for shape in SHAPES.values() for key in shape.keys}
        for ours in self._columns:
            if ours not in known:
                raise ConfigError(
                    f"data.columns: {ours!r} is not a column of ours",
                    remedy=nearest(ours, known) + "; write OURS: YOURS, e.g. {user: question}",
                )

    @property
    def shape(self) -> str:
        """The name of the shape; empty before the first row."""
        return self._shape.name if self._shape else ""

    def read(self, row: Row) -> Conversation:
        """The Conversation of a row."""
        where = str(row.origin)
        value, extra = self._named(row.value, where)
        if self._shape is None:
            self._shape = _recognise(value, where)
        shape = self._shape
        if stray := [ours for ours in self._columns if ours not in shape.keys]:
            raise ConfigError(
                f"data.columns names {stray[0]!r}, which rows of shape {shape.name!r} do not have",
                where=where,
                remedy=nearest(stray[0], shape.keys),
            )
        missing = [key for key in shape.needs if key not in value]
        if missing:
            self._refuse(shape, missing[0], row.value, where)
        remarks = Remarks()
        for key in [*extra, *(key for key in value if key not in shape.keys and key not in extra)]:
            if key not in _SILENT:
                remarks.add("unknown-key", key)
        messages = shape.read(value, where, remarks)
        tools = read_tools(value.get("tools"), where, remarks)
        if not any(message.role == "assistant" for message in messages):
            raise DataError(
                "no assistant turn: there is nothing to learn from this row",
                where=where,
                remedy="add a message with role 'assistant', or remove the row",
            )
        return Conversation(tuple(messages), row.origin, tuple(tools), tuple(remarks.codes))

    def _named(self, value: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], list[str]]:
        """The row under our names, and its other keys that carry a name of ours by chance."""
        if not self._columns:
            return value, []
        theirs = set(self._columns.values())
        renamed = {key: inner for key, inner in value.items() if key not in theirs}
        clash = [key for key in renamed if key in self._columns]
        for key in clash:
            del renamed[key]
        for ours, name in self._columns.items():
            if name in value:
                renamed[ours] = value[name]
            elif ours not in _OPTIONAL:
                raise DataError(
                    f"no column {name!r}, which data.columns gives as {ours!r}; "
                    f"found {', '.join(map(repr, value))}",
                    where=where,
                    remedy=nearest(name, value),
                )
        return renamed, clash

    def _refuse(self, shape: Shape, missing: str, value: Mapping[str, Any], where: str) -> None:
        found = ", ".join(map(repr, value)) or "no keys"
        near = difflib.get_close_matches(missing, value, n=1, cutoff=0.5)
        hint = f"did you mean {missing!r} by {near[0]!r}? " if near else ""
        raise DataError(
            f"the row has no {missing!r}, as rows of shape {shape.name!r} must; found {found}",
            where=where,
            remedy=f"{hint}all rows of a file have one shape; data.columns renames columns",
        )


def _recognise(value: Mapping[str, Any], where: str) -> Shape:
    for shape in SHAPES.values():
        if all(key in value for key in shape.needs):
            return shape
    known = {key for shape in SHAPES.values() for key in shape.needs}
    near = [(key, difflib.get_close_matches(key, known, n=1, cutoff=0.75)) for key in value]
    hints = [f"did you mean {meant[0]!r} by {key!r}? " for key, meant in near if meant]
    shapes = "; ".join(f"{shape.name} ({', '.join(shape.needs)})" for shape in SHAPES.values())
    raise DataError(
        f"the shape of the rows is not known; found {', '.join(map(repr, value)) or 'no keys'}",
        where=where,
        remedy=f"{hints[0] if hints else ''}known: {shapes}; "
        "or map your columns, e.g. data.columns='{user: question, assistant: answer}'",
    )


def _read_messages(value: Mapping[str, Any], where: str, remarks: Remarks) -> list[Message]:
    return read_messages(value["messages"], f"{where} /messages", remarks)


def _read_prompt_completion(
    value: Mapping[str, Any], where: str, remarks: Remarks
) -> list[Message]:
    prompt, completion = value["prompt"], value["completion"]
    if isinstance(prompt, list):
        said = read_messages(value["prompt"], f"{where} /prompt", remarks)
        for message in said:
            if message.weight:
                raise DataError(
                    "a message of the prompt has a weight; a prompt is never trained",
                    where=f"{where} /prompt",
                    remedy="remove it, or use the 'messages' shape",
                )
        messages = [_with_weight(message, 0.0) for message in said]
    else:
        messages = [Message("user", text_of(prompt, f"{where} /prompt"))]
    if isinstance(completion, list):
        messages += read_messages(value["completion"], f"{where} /completion", remarks)
    else:
        messages.append(Message("assistant", text_of(completion, f"{where} /completion")))
    if value.get("system") is not None:
        messages.insert(0, Message("system", text_of(value["system"], f"{where} /system")))
    return messages


def _with_weight(message: Message, weight: float) -> Message:
    if message.role != "assistant":
        return message
    return Message(
        message.role,
        message.content,
        message.reasoning,
        message.tool_calls,
        message.tool_call_id,
        message.name,
        weight,
    )


def _read_turns(value: Mapping[str, Any], where: str, remarks: Remarks) -> list[Message]:
    del remarks
    return [
        Message(role, text_of(value[role], f"{where} /{role}"))
        for role in ("system", "user", "assistant")
        if role in value and not (role == "system" and value[role] is None)
    ]


_OPTIONAL: Final = frozenset({"system", "tools"})

SHAPES: Final[dict[str, Shape]] = {
    "messages": Shape("messages", ("messages",), ("tools",), _read_messages),
    "prompt-completion": Shape(
        "prompt-completion", ("prompt", "completion"), ("system", "tools"), _read_prompt_completion
    ),
    "turns": Shape("turns", ("user", "assistant"), ("system", "tools"), _read_turns),
}
