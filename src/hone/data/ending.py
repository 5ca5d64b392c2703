"""How a template ends an assistant turn, found by rendering made-up turns. It knows text, no token ids and no row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final

from hone.data.template import ChatTemplate, TemplateError

Spans = Callable[[str], list[tuple[int, int]]]
"""Where the control tokens of a text that the template wrote lie: [start, stop) of their letters."""

_ASKED: Final = "qwordone"
_SAID: Final = "qwordtwo"
_ASKED_AGAIN: Final = "qwordthree"


@dataclass(frozen=True, slots=True)
class Ending:
    """What follows the reply of a plain assistant turn.

    `last`: all text after it where the turn is the last message; its first `end` characters belong to
    the turn, and `closes` says that they end with a control token. `inside`: what follows the reply up
    to and with such a token where the conversation goes on, "" where there is none.
    """

    last: str
    end: int
    closes: bool
    inside: str


def find_ending(
    template: ChatTemplate, spans: Spans, *, bos: str | None, eos: str | None
) -> Ending | None:
    """How `template` ends a plain turn, or None where it refuses a made-up one or changes its words.

    After the end of a turn may stand more: an end of text after the very last turn, the beginning of the
    next, a prompt that is always written. The end is the last token after the reply that is written
    whether or not the conversation goes on, and that opens nothing.
    """
    asked = {"role": "user", "content": _ASKED}
    said = {"role": "assistant", "content": _SAID}
    last = _part(template, [asked, said], _SAID)
    if last is None:
        return None
    again = [asked, said, {"role": "user", "content": _ASKED_AGAIN}]
    between = _part(template, again, _SAID, _ASKED_AGAIN)
    before = _part(template, [asked], "", _ASKED) or ""
    opens = [before[a:b] for a, b in spans(before)]
    inside = _first_end(between or "", spans, set(opens) - {eos})
    first = next((token for token in opens if token != bos), None)
    openers = {bos, first} - {eos}
    common = len(last) if between is None else common_length(last, between)
    written = spans(last)
    shared = [span for span in written if span[1] <= common]
    ends = [*shared]
    while ends and last[slice(*ends[-1])] in openers:
        ends.pop()
    if ends:
        return Ending(last, ends[-1][1], closes=True, inside=last[: ends[-1][1]])
    prompted = _part(template, [asked], _ASKED) or ""  # though nobody asks for a prompt
    own = next((span for span in written if last[slice(*span)] == eos), None)
    if not shared and not prompted.endswith(last):
        own = own or next(iter(written), None)
    if own is not None:  # the very last turn has an end of its own
        return Ending(last, own[1], closes=True, inside=inside)
    return Ending(last, min([common, *(a for a, _ in written)]), closes=False, inside=inside)


def _part(
    template: ChatTemplate, messages: Sequence[Mapping[str, Any]], after: str, before: str = ""
) -> str | None:
    """What `template` writes after one word and before another; None where it does not write them."""
    try:
        text = template.render(messages)
    except TemplateError:
        return None
    _, found, text = text.partition(after) if after else ("", "", text)
    if found != after or before not in text:
        return None
    return text.partition(before)[0] if before else text


def _first_end(between: str, spans: Spans, opens: Set[str | None]) -> str:
    """What ends a turn where the conversation goes on: through the first token, if that opens no turn."""
    first = next(iter(spans(between)), None)
    if first is None or between[slice(*first)] in opens:
        return ""
    return between[: first[1]]


def common_length(a: str, b: str) -> int:
    """Length of the common beginning."""
    if b.startswith(a):
        return len(a)
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
