"""Rows of one file to what the renderer takes, by the one shape that they have. It knows keys, not templates or tokens."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from hone.data.conversation import Content, Conversation
from hone.data.messages import count_plain_keys, plain_messages
from hone.data.reader import Row
from hone.data.remarks import Remarks
from hone.data.shapes.columns import ANSWERS, QUESTIONS
from hone.data.shapes.given import Given
from hone.data.shapes.table import SHAPES, Shape
from hone.data.shapes.tags import Tags
from hone.data.strict import keeps_close_keys
from hone.data.values import MEDIA, refuse
from hone.errors import ConfigError, DataError, nearest

__all__ = ["SHAPES", "RowFormat", "Shape"]

_MESSAGES_ALONE: Final = ("messages",)
# Keys of a row that other tools write beside the conversation and that change nothing here.
_SILENT: Final = frozenset({"parallel_tool_calls", "response_format"})
# Columns that a row of some shape may lack; what its own shape needs is asked for later.
_OPTIONAL: Final = frozenset(key for shape in SHAPES.values() for key in shape.may)
_PLAIN_KEYS_KEPT: Final = 64


class RowFormat:
    """How rows of one file become Content: settled by the first row, then demanded of every row.

    `columns` maps our names to the row's, `tags` names keys and roles of ShareGPT turns, `input_heading` stands
    above the input of an Alpaca row. Raises
    ConfigError when either cannot be meant, DataError for a row of another shape.
    """

    def __init__(
        self,
        name: str = "auto",
        columns: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        input_heading: str | None = None,
    ) -> None:
        self._columns = dict(columns or {})
        self._tags = Tags.of(tags or {})
        self._input_heading = input_heading
        self._shape: Shape | None = None if name == "auto" else SHAPES[name]
        # Key lists of `messages` rows that the careful road has seen, with what it remarked on them.
        self._plain: dict[tuple[str, ...], tuple[str, ...]] = {}
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

    def read(self, row: Row) -> Content:
        """What the row comes to. Raises DataError naming file, line and JSON pointer."""
        # Most rows of large files are plain messages: they are taken as they are, everything else is
        # looked at key by key.
        if self._plain:
            value = row.value
            codes = self._plain.get(tuple(value))
            if codes is not None:
                messages = plain_messages(value["messages"])
                if messages is not None:
                    return Conversation(messages, row.origin, (), codes)
        return self._read(row)

    def skim(self, data: bytes) -> bool:
        """Whether a row is surely one that `read` takes, as it is, found without making anything of it."""
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return False
        if value.__class__ is not dict or len(value) != 1 or self._plain.get(_MESSAGES_ALONE) != ():
            return False
        keys = count_plain_keys(value.get("messages"))
        return keys > 0 and keeps_close_keys(data, keys + 1)

    def _read(self, row: Row) -> Content:
        where = str(row.origin)
        value, extra = self._named(row.value, where)
        shape = self._settle(value, where)
        missing = [key for key in shape.needs if key not in value]
        if missing:
            _refuse_missing(shape, missing[0], row.value, where)
        remarks = Remarks()
        for key in [*extra, *(key for key in value if key not in shape.keys and key not in extra)]:
            _note(key, row.value if key in extra else value, shape, where, remarks)
        if shape.name == "messages" and not self._columns and _is_plain(value, shape):
            self._plain[tuple(value)] = tuple(remarks.codes)
            if len(self._plain) > _PLAIN_KEYS_KEPT:
                self._plain.clear()
        return shape.read(Given(value, row.origin, remarks, self._tags, self._input_heading))

    def _settle(self, value: Mapping[str, Any], where: str) -> Shape:
        """The shape of the file, from this row if it is the first."""
        if self._shape is None:
            self._shape = _recognise(value, where, self._tags)
        shape = self._shape
        if stray := [ours for ours in self._columns if ours not in shape.keys]:
            raise ConfigError(
                f"data.columns names {stray[0]!r}, which rows of shape {shape.name!r} do not have",
                where=where,
                remedy=nearest(stray[0], shape.keys),
            )
        if self._tags.given and shape.name != "sharegpt":
            raise ConfigError(
                f"data.tags is for rows of shape 'sharegpt'; these are {shape.name!r}",
                where=where,
                remedy="remove data.tags, or set data.format to 'sharegpt'",
            )
        return shape

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
            elif ours not in (_OPTIONAL if self._shape is None else self._shape.may):
                raise DataError(
                    f"no column {name!r}, which data.columns gives as {ours!r}; "
                    f"found {', '.join(map(repr, value)) or 'no keys'}",
                    where=where,
                    remedy=nearest(name, value),
                )
        return renamed, clash


def _note(key: str, value: Mapping[str, Any], shape: Shape, where: str, remarks: Remarks) -> None:
    """Remark a key that the shape does not have, or refuse it where leaving it out would mislead."""
    if key in MEDIA:
        if value[key] not in (None, "", [], {}):
            refuse(
                f"the row has {key}: only text can be trained on",
                f"{where} /{key}",
                "remove the row, or the column if the text stands without it",
            )
        return
    if key == "loss_mask" and value[key] is not None:
        refuse(
            f"rows of shape {shape.name!r} have no loss_mask",
            f"{where} /{key}",
            "write the row as messages, where a mask is read, or remove the mask",
        )
    if key not in _SILENT:
        remarks.add("unknown-key", key)


def _is_plain(value: Mapping[str, Any], shape: Shape) -> bool:
    """Whether nothing but the messages decides what the row comes to, whatever the other keys hold."""
    return not any(key in shape.may or key in MEDIA or key == "loss_mask" for key in value)


def _recognise(value: Mapping[str, Any], where: str, tags: Tags) -> Shape:
    for shape in SHAPES.values():
        if shape.recognises(value, tags):
            return shape
    known = {key for shape in SHAPES.values() for key in shape.needs}
    near = [(key, difflib.get_close_matches(key, known, n=1, cutoff=0.75)) for key in value]
    hints = [
        f"did you mean {meant[0]!r} by {key!r}? "
        for key, meant in near
        if meant and meant[0] != key
    ]
    asked = next((key for key in QUESTIONS if key in value), None)
    answered = next((key for key in ANSWERS if key in value and key != asked), None)
    example = "data.columns='{user: question, assistant: answer}'"
    ready = f"data.columns='{{user: {asked}, assistant: {answered}}}'" if asked and answered else ""
    shapes = "; ".join(f"{shape.name} ({', '.join(shape.needs)})" for shape in SHAPES.values())
    raise DataError(
        f"the shape of the rows is not known; found {', '.join(map(repr, value)) or 'no keys'}",
        where=where,
        remedy=f"map your columns: {ready}"
        if ready and not hints
        else f"{hints[0] if hints else ''}known: {shapes}; or map your columns, e.g. {example}",
    )


def _refuse_missing(shape: Shape, missing: str, value: Mapping[str, Any], where: str) -> None:
    found = ", ".join(map(repr, value)) or "no keys"
    near = difflib.get_close_matches(missing, value, n=1, cutoff=0.5)
    hint = f"did you mean {missing!r} by {near[0]!r}? " if near else ""
    raise DataError(
        f"the row has no {missing!r}, as rows of shape {shape.name!r} must; found {found}",
        where=where,
        remedy=f"{hint}all rows of a file have one shape; data.columns renames columns",
    )
