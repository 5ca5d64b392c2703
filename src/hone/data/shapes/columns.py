"""Rows whose columns each hold one thing said: prompts, answers, plain text. It knows no lists of turns but Alpaca's history."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from hone.data.conversation import Content, Message
from hone.data.messages import read_messages
from hone.data.shapes.given import Given
from hone.data.shapes.tags import Tags
from hone.data.values import kind, refuse, text_of
from hone.errors import nearest

QUESTIONS: Final = ("user", "question", "prompt", "input", "instruction", "query", "problem")
"""What tools call the side that asks."""
ANSWERS: Final = (
    "assistant",
    "answer",
    "response",
    "target",
    "output",
    "completion",
    "reply",
    "solution",
)
"""What tools call the side that answers."""

# Beside a question these hold what it is about: to leave them out would change what is asked.
_CONTEXTS: Final = ("input", "context")


def prompt_completion_row(given: Given) -> Content:
    """A prompt that is context and a completion that is learned, each as text or as messages."""
    prompt, completion = given.value["prompt"], given.value["completion"]
    if isinstance(prompt, list):
        said = read_messages(given.value["prompt"], given.at("/prompt"), given.remarks)
        if any(message.weight for message in said):
            refuse(
                "a message of the prompt has a weight; a prompt is never trained",
                given.at("/prompt"),
                "remove it, or use the 'messages' shape",
            )
        messages = [
            replace(message, weight=0.0) if message.role == "assistant" else message
            for message in said
        ]
    else:
        messages = [_asked(given, given.text("prompt"))]
    if isinstance(completion, list):
        messages += read_messages(given.value["completion"], given.at("/completion"), given.remarks)
    else:
        messages.append(_answered(given, given.text("completion")))
    if given.value.get("system") is not None:
        messages.insert(0, Message("system", given.text("system")))
    return given.conversation(messages)


def turns_row(given: Given) -> Content:
    """One column for each role."""
    messages = [_asked(given, given.text("user")), _answered(given, given.text("assistant"))]
    if given.value.get("system") is not None:
        messages.insert(0, Message("system", given.text("system")))
    return given.conversation(messages)


def alpaca_row(given: Given) -> Content:
    """An instruction with an optional input after it on a new line or under its heading, the output, and earlier
    turns.

    The replies of the history are learned too, as LLaMA-Factory does.
    """
    said, beside = given.text("instruction"), given.text_if_any("input")
    between = "\n"
    if given.input_heading is not None:
        beside = beside if beside.strip() else ""
        between = f"\n\n{given.input_heading}\n" if said and beside else ""
    messages = [
        *_history(given),
        _asked(given, between.join(text for text in (said, beside) if text)),
        _answered(given, given.text("output")),
    ]
    return given.conversation(given.with_system(messages))


def answer_row(question: str, answer: str) -> Callable[[Given], Content]:
    """How a row of a question and its answer is read, by the names of the two columns."""

    def read(given: Given) -> Content:
        for key in _CONTEXTS:
            if given.value.get(key) not in (None, ""):
                refuse(
                    f"the row has {key!r} beside {question!r}: it would be left out of what is asked",
                    given.at(f"/{key}"),
                    f"data.columns='{{instruction: {question}, input: {key}, output: {answer}}}' "
                    "puts it after the question",
                )
        messages = [_asked(given, given.text(question)), _answered(given, given.text(answer))]
        return given.conversation(given.with_system(messages))

    return read


def pairs_row(given: Given) -> Content:
    """A line that is a list of two: the question, and the answer as text or as `{"answer": text}`."""
    question, answer = _two(given.value["pair"], given.where)
    where = given.at("/1")
    if isinstance(answer, dict):
        said = cast("dict[str, Any]", answer)
        if "answer" not in said:
            found = ", ".join(map(repr, said)) or "no keys"
            remedy = nearest("answer", said) if said else None
            refuse(f"the answer has no 'answer'; found {found}", where, remedy)
        for key in said:
            if key != "answer":
                given.remarks.add("unknown-key", f"1/{key}")
        answer, where = said["answer"], f"{where}/answer"
    asked = _asked(given, text_of(question, given.at("/0")))
    return given.conversation([asked, _answered(given, text_of(answer, where))])


def stands_alone(value: Mapping[str, Any], tags: Tags) -> bool:
    """Whether nothing beside one text looks like another side of it."""
    del tags
    others = [key for key in value if key not in ("text", "completion")]
    return not any(key in (*QUESTIONS, *ANSWERS) or _is_near(key, "prompt") for key in others)


def text_row(given: Given) -> Content:
    """Plain text, all of which is learned."""
    return given.document(given.text("text"))


def completion_row(given: Given) -> Content:
    """A completion of nothing: plain text, all of which is learned."""
    return given.document(given.text("completion"))


def _is_near(key: str, name: str) -> bool:
    return bool(difflib.get_close_matches(key, [name], cutoff=0.75))


def _history(given: Given) -> list[Message]:
    history = given.value.get("history")
    if history is None or history == "":
        return []
    if not isinstance(history, list):
        refuse(
            f"a history is a list of pairs; found {kind(history)}",
            given.at("/history"),
            'write [["question", "answer"], …]',
        )
    messages: list[Message] = []
    for i, pair in enumerate(cast("list[Any]", history)):
        where = given.at(f"/history/{i}")
        question, answer = _two(pair, where)
        messages.append(_asked(given, text_of(question, f"{where}/0")))
        messages.append(_answered(given, text_of(answer, f"{where}/1")))
    return messages


def _two(value: object, where: str) -> tuple[Any, Any]:
    pair = cast("list[Any]", value) if isinstance(value, list) else []
    if len(pair) != 2:
        found = f"a list of {len(pair)}" if isinstance(value, list) else kind(value)
        refuse(f"a list of two is wanted; found {found}", where, 'write ["question", "answer"]')
    return pair[0], pair[1]


def _asked(given: Given, text: str) -> Message:
    if not text:
        given.remarks.add("empty-prompt")
    return Message("user", text)


def _answered(given: Given, text: str) -> Message:
    if not text:
        given.remarks.add("empty-assistant")
    return Message("assistant", text)
