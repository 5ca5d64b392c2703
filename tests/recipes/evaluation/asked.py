"""Questions and answers made by hand."""

from __future__ import annotations

from typing import Any

from hone.data.conversation import Message, ToolCall
from hone.infer.call_formats import Call
from hone.recipes.evaluation.answer import Answer
from hone.recipes.evaluation.question import Question, Reference

TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
    },
}


def question(
    reference: str = "",
    *,
    calls: tuple[ToolCall, ...] = (),
    tools: tuple[Any, ...] = (),
    row: str = "rows.jsonl:1",
    asks: str = "what?",
    source: str = "rows.jsonl",
) -> Question:
    return Question(
        row,
        source,
        1,
        (Message("user", asks),),
        tools,
        Reference(reference, calls),
        frozenset(call.name for call in calls),
    )


def answer(text: str = "", *calls: Call, finish: str = "stop") -> Answer:
    return Answer(text, "", calls, finish, 3)
