"""What each finding of a survey means, and what to do about it, in a line each. It knows no rows."""

from __future__ import annotations

from typing import Final

from hone.data.road import remark_sentence
from hone.data.validation.near import MOST_TEXTS, THRESHOLD
from hone.data.validation.oddities import KINDS

_ADVICE: Final = {
    "duplicate": (
        "the row says exactly what an earlier one says",
        "remove it, unless it is to count twice: hone validate --fix OUT --dedupe",
    ),
    "near-duplicate": (
        f"the row shares {THRESHOLD:.0%} or more of its runs of three words with an earlier one",
        "look at a few: copies from a template teach the template, not the task",
    ),
    "near-left-out": (
        f"rows beyond the first {MOST_TEXTS:,} were not compared for near duplicates",
        "compare them in parts, if it matters",
    ),
    "overlap": (
        "the validation row stands in the training rows as well",
        "remove it from one of the two: what was trained cannot be measured",
    ),
    "near-overlap": (
        f"the validation row shares {THRESHOLD:.0%} or more of its runs of three words with a training row",
        "look at a few; split by a column that tells cases apart: hone split --group",
    ),
    "too-long": (
        "the row is longer than the limit",
        "data.too_long says what happens: refuse, drop or cut",
    ),
    "loses-trained": (
        "cut to the limit, the row loses tokens that are trained",
        "shorten it, or raise the limit: an answer that is cut teaches to stop anywhere",
    ),
    "loses-all": (
        "cut to the limit, nothing of the row is trained",
        "shorten its context, or leave it out with data.too_long=drop",
    ),
    "no-last-reply": (
        "the conversation does not end with a reply",
        "remove the turns after the last reply: they are never learned",
    ),
    "template-refuses": (
        "the chat template refuses the row",
        "hone preview shows why; data.template chooses another",
    ),
    "nothing-to-train": (
        "nothing of the row is trained",
        "give a message a weight, or remove the row: it is dropped",
    ),
    "mixed-form": (
        "some texts are in composed and some in decomposed form (NFC, NFD): é is one character here, two there",
        "write all of it in NFC: the same word has other tokens otherwise",
    ),
    "control-text": (
        "a message spells a control token of the model",
        "leave it, if it is meant: it is trained as ordinary text and never becomes the token",
    ),
    "call-without-result": (
        "a tool call has no result",
        "add the result, unless the row is to end with the call",
    ),
    "result-without-call": ("a tool result answers no call", "repair tool_call_id, or remove it"),
    "empty-assistant": (
        "a reply is empty: only its end is learned",
        "write the reply, or give it a weight of 0",
    ),
    "empty-prompt": ("the question is empty", "write it, or use rows of plain text"),
    "duplicate-call-id": ("two tool calls have one id", "give each call an id of its own"),
    "arguments-not-json": (
        "arguments of a tool call are not a JSON object",
        "repair them: the model would learn to call that way",
    ),
    "unknown-key": ("a key that nothing here reads is ignored: {}", "rename it, if it matters"),
}
_UNICODE_ADVICE: Final = "remove them, unless they are meant: the model learns to write them"


def explained(code: str) -> tuple[str, str]:
    """What a code means, and one line of advice."""
    name, _, detail = code.partition(":")
    if name.startswith("unicode-"):
        return f"the text has {KINDS[name.removeprefix('unicode-')]}", _UNICODE_ADVICE
    if name in _ADVICE:
        what, advice = _ADVICE[name]
        return what.format(detail), advice
    return remark_sentence(code), "look at a few of these rows with hone preview"
