"""What rows ask: each answer that stands in a row is one question, with everything before it as the prompt. No model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hone.data.conversation import Content, Conversation, Message, ToolCall, split_thought
from hone.data.prepare import Rows
from hone.data.raw_rows import RawRows
from hone.data.road import row_format
from hone.errors import DataError
from hone.infer.call_formats import read_json

_SPELLED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """What the row answers: its text without reasoning, and its calls."""

    text: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class Question:
    """A prompt and what the row says after it. `row` is file and line, `turn` the answer's place among its messages."""

    row: str
    source: str
    turn: int
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    reference: Reference
    calls_in_row: frozenset[str] = frozenset()
    """Functions that the row calls anywhere: it may call them where it declares no tools."""

    @property
    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """The schema of the arguments of each function that may be called, by name."""
        found: dict[str, Mapping[str, Any]] = {name: {} for name in sorted(self.calls_in_row)}
        for tool in self.tools:
            function: Any = tool.get("function") or {}
            if name := function.get("name"):
                found[str(name)] = function.get("parameters") or {}
        return found

    @property
    def prompt(self) -> list[dict[str, Any]]:
        """The messages as chat templates read them."""
        return [one.as_template() for one in self.messages]


@dataclass
class Reading:
    """Questions in the order of the rows, and how many rows ask nothing."""

    questions: list[Question] = field(default_factory=list[Question])
    rows: int = 0
    silent: int = 0
    """Rows without an answer to a question: documents, token ids, prompts alone."""
    first_silent: str = ""


def read_questions(sources: Sequence[Rows]) -> Reading:
    """The questions of all rows.

    Which turns of a row count follows its weights and `data.train_on`, as in training. Raises DataError.
    """
    reading = Reading()
    for rows in sources:
        name = rows.file.name
        for content in _contents(rows):
            reading.rows += 1
            said = isinstance(content, Conversation)
            asked = list(_questions(content, name, rows.section.train_on)) if said else []
            if not asked:
                reading.silent += 1
                reading.first_silent = reading.first_silent or str(content.origin)
            reading.questions += asked
    return reading


def _contents(rows: Rows) -> Iterator[Content]:
    form = row_format(rows.section)
    for raw in RawRows(rows.file.path, name=rows.file.name):
        try:
            content = form.read(raw.parse())
        except DataError:
            if rows.section.bad_rows == "drop":
                continue
            raise
        yield content


def _questions(said: Conversation, source: str, train_on: str) -> Iterator[Question]:
    messages = said.messages
    turns = [one for one in messages if one.role == "assistant"]
    spelled = [call for one in turns for call in spelled_calls(one.content)[1]]
    called = frozenset(
        call.name for call in [*spelled, *(call for one in turns for call in one.tool_calls)]
    )
    places = [i for i, one in enumerate(messages) if one.role == "assistant" and i > 0]
    if train_on == "last":
        places = places[-1:]
    for place in places:
        answer = messages[place]
        if answer.weight is not None and answer.weight <= 0:
            continue
        if not (answer.content.strip() or answer.tool_calls):
            continue
        thought = split_thought(answer.content) if answer.reasoning is None else None
        text = answer.content if thought is None else thought[1]
        text, calls = (text, ()) if answer.tool_calls else spelled_calls(text)
        yield Question(
            str(said.origin),
            source,
            place,
            messages[:place],
            said.tools,
            Reference(text.strip(), answer.tool_calls or calls),
            called,
        )


def spelled_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The calls that a text spells between `<tool_call>` tags, as `hone process` writes them, and the text without them.

    Where what stands between two tags is no call, the text is left as it is.
    """
    found: list[ToolCall] = []
    for spelled in _SPELLED.findall(text):
        calls = read_json(spelled, {})
        if calls is None:
            return text, ()
        found += [ToolCall(one.name, dict(one.arguments)) for one in calls]
    return (_SPELLED.sub("", text) if found else text), tuple(found)
