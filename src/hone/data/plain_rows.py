"""A row of whatever columns to a Conversation, and the tidying of its texts. It knows names of columns, no files.

Rows of a known shape are read by `formats.py`; here are the names that people give to a question and its answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, cast

from hone.data.conversation import Conversation, Message
from hone.data.example import Origin
from hone.data.formats import SHAPES, RowFormat
from hone.data.messages import kind, text_of
from hone.data.reader import Row
from hone.data.strict import JsonObject
from hone.errors import DataError

DEFAULT_SYSTEM: Final = "You are a helpful domain assistant."

_ASKS: Final = ("user", "question", "prompt", "input", "instruction", "query")
_ANSWERS: Final = ("assistant", "answer", "response", "target", "output", "completion")
_TAGS: Final = {"human": "user", "gpt": "assistant", "system": "system"}
_SYSTEM: Final = ("system", "developer")
_READ_AS_THEY_ARE: Final = ("messages", "prompt-completion", "turns")
# Shapes whose texts are single columns: their ends are trimmed, and none may be blank.
_COLUMNS: Final = frozenset({"turns", "prompt-completion", "alpaca", "columns", "pairs"})


@dataclass(frozen=True)
class PlainRow:
    """What a row says, its shape, the columns that were taken for ours, and those that nothing took."""

    said: Conversation
    shape: str
    mapped: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tidying:
    """What is done to the texts of a row. `system` empty: no system text is added."""

    system: str = DEFAULT_SYSTEM
    max_characters: int | None = None

    def tidy(self, row: PlainRow) -> tuple[Conversation, list[str]]:
        """The conversation, and what was done to it, in words. Raises DataError where a text is blank."""
        done: list[str] = []
        messages = list(row.said.messages)
        if row.shape in _COLUMNS:
            messages = self._trimmed(messages, row.said.origin, done)
        if self.max_characters is not None:
            messages = [self._cut(one, self.max_characters, done) for one in messages]
        if self.system and (not messages or messages[0].role not in _SYSTEM):
            messages.insert(0, Message("system", self.system))
            done.append("the default system text was added")
        return replace(row.said, messages=tuple(messages)), done

    def _trimmed(self, messages: list[Message], origin: Origin, done: list[str]) -> list[Message]:
        kept: list[Message] = []
        for one in messages:
            text = one.content.strip()
            if not text and one.role == "system":
                done.append("a blank system text was removed")
                continue
            if not text and not one.tool_calls:
                raise DataError(f"the text of the {one.role} is blank", where=str(origin))
            if text != one.content and "spaces at the ends of a text were removed" not in done:
                done.append("spaces at the ends of a text were removed")
            kept.append(replace(one, content=text))
        return kept

    def _cut(self, one: Message, most: int, done: list[str]) -> Message:
        if one.role not in ("user", "assistant") or len(one.content) <= most:
            return one
        text = f"a text of the {one.role} was cut to {most:,} characters"
        if text not in done:
            done.append(text)
        return replace(one, content=one.content[:most])


def read_plain(row: JsonObject, origin: Origin) -> PlainRow:
    """The conversation of one row, which is recognised by itself: a file may mix shapes. Raises DataError."""
    if any(all(key in row for key in SHAPES[shape].needs) for shape in _READ_AS_THEY_ARE):
        return _known(row, origin)
    if isinstance(row.get("pair"), list):
        return _pair(row["pair"], origin)
    if isinstance(row.get("conversations"), list):
        return _known(row, origin) if _calls(row) else _conversations(row, origin)
    holds_messages = isinstance(row.get("input"), dict)
    if not holds_messages and _first(row, _ASKS) and _first(row, _ANSWERS):
        return _columns(row, origin)
    if any(all(key in row for key in shape.needs) for shape in SHAPES.values()):
        return _known(row, origin)
    what, names = ("answer", _ANSWERS) if _first(row, _ASKS) else ("question", _ASKS)
    raise DataError(
        f"no column holds the {what}; found {', '.join(map(repr, row)) or 'no keys'}",
        where=str(origin),
        remedy=f"name it one of {', '.join(names)}",
    )


def _known(row: JsonObject, origin: Origin) -> PlainRow:
    """A row of a shape that `formats.py` reads."""
    form = _messages() if "messages" in row else RowFormat()
    said = cast("object", form.read(Row(row, origin)))
    if not isinstance(said, Conversation):
        raise DataError(f"rows of shape {form.shape!r} have no turns", where=str(origin))
    left_out = tuple(key for key in row if key not in SHAPES[form.shape].keys)
    return PlainRow(said, form.shape, left_out=left_out)


@cache
def _messages() -> RowFormat:
    """Kept, because most rows of large files are messages."""
    return RowFormat("messages")


def _calls(row: Mapping[str, Any]) -> bool:
    """Whether turns of from/value call tools."""
    turns = cast("list[Any]", row["conversations"])
    tags = [cast("dict[str, Any]", one).get("from") for one in turns if isinstance(one, dict)]
    return "function_call" in tags or "observation" in tags


def _pair(pair: list[Any], origin: Origin) -> PlainRow:
    question, answer = pair
    if isinstance(answer, dict):
        named = cast("dict[str, Any]", answer)
        answer = named.get(_first(named, _ANSWERS) or "")
    said = _exchange(None, [], text_of(question, f"{origin} /0"), text_of(answer, f"{origin} /1"))
    return PlainRow(_as_read(said, None, origin), "pairs")


def _conversations(row: Mapping[str, Any], origin: Origin) -> PlainRow:
    """Turns of role/content, or of from/value; a system turn at the beginning counts before the column."""
    messages: list[Any] = []
    first: object = None
    shape = "conversations"
    for one in cast("list[Any]", row["conversations"]):
        turn = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        if "from" in turn:
            shape = "sharegpt"
            turn = {"role": _TAGS.get(turn["from"], turn["from"]), "content": turn.get("value")}
        first = first if messages else turn.get("role")
        messages.append(turn or one)
    if first not in _SYSTEM and row.get("system") is not None:
        text = text_of(row["system"], f"{origin} /system")
        messages.insert(0, {"role": "system", "content": text})
    left_out = tuple(key for key in row if key not in ("conversations", "system", "tools"))
    return PlainRow(_as_read(messages, row.get("tools"), origin), shape, left_out=left_out)


def _columns(row: Mapping[str, Any], origin: Origin) -> PlainRow:
    ask, answer = _first(row, _ASKS) or "", _first(row, _ANSWERS) or ""
    taken = [ask, answer]
    question = text_of(row[ask], f"{origin} /{ask}")
    if _says(row, "instruction") and _says(row, "input"):
        # The instruction and what it is about belong together: neither says enough alone.
        taken = ["instruction", "input", answer]
        about = text_of(row["input"], f"{origin} /input")
        question = f"{text_of(row['instruction'], f'{origin} /instruction')}\n{about}"
    elif _says(row, "instruction"):
        taken = ["instruction", answer]
        question = text_of(row["instruction"], f"{origin} /instruction")
    system = row.get("system")
    text = None if system is None else text_of(system, f"{origin} /system")
    said = _exchange(
        text, _history(row, origin), question, text_of(row[answer], f"{origin} /{answer}")
    )
    silent = {"system", "tools", "history", *taken}
    left_out = tuple(key for key in row if key not in silent and _says(row, key))
    mapped = () if "user" in taken and "assistant" in taken else (" and ".join(taken),)
    return PlainRow(_as_read(said, row.get("tools"), origin), "columns", mapped, left_out)


def _history(row: Mapping[str, Any], origin: Origin) -> list[tuple[str, str]]:
    """Earlier exchanges, as `history: [[question, answer], ...]`."""
    said = row.get("history")
    if said is None:
        return []
    pairs = cast("list[Any]", said) if isinstance(said, list) else [said]
    found: list[tuple[str, str]] = []
    for i, pair in enumerate(pairs):
        where = f"{origin} /history/{i}"
        if not isinstance(pair, list) or len(cast("list[Any]", pair)) != 2:
            raise DataError(
                f"the history is a list of pairs; found {kind(cast('object', pair))}", where=where
            )
        question, answer = cast("list[Any]", pair)
        found.append((text_of(question, f"{where}/0"), text_of(answer, f"{where}/1")))
    return found


def _exchange(
    system: str | None, history: list[tuple[str, str]], question: str, answer: str
) -> list[Any]:
    """Messages as their reader takes them."""
    said: list[Any] = [] if system is None else [{"role": "system", "content": system}]
    for ask, reply in (*history, (question, answer)):
        said += [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
    return said


def _as_read(messages: list[Any], tools: object, origin: Origin) -> Conversation:
    row: dict[str, Any] = {"messages": messages} | ({} if tools is None else {"tools": tools})
    said = cast("object", _messages().read(Row(row, origin)))
    assert isinstance(said, Conversation)
    return said


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the columns that says something, or that is there at all."""
    there = [name for name in names if name in row]
    return next((name for name in there if _says(row, name)), there[0] if there else None)


def _says(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    return value is not None and not (isinstance(value, str) and not value.strip())
