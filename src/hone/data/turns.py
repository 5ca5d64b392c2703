"""Where each trained turn begins and ends in what the template writes. It knows text, no tokens ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone.data.control import strings_in, unused_characters
from hone.data.template import ChatTemplate, TemplateError

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """A trained turn: `text[:start]` is its prompt, `text[start:stop]` is trained.

    `text` is the conversation up to this turn, as the template writes it. `closes` is False where the
    template writes no end of turn: then the end-of-text token is trained after it, if it is a reply.
    """

    weight: float
    text: str
    start: int
    stop: int
    closes: bool
    remarks: tuple[str, ...] = ()
    is_reply: bool = True
    """False for a turn of another role than the assistant's: no model is to write it by itself."""


class TurnFinder:
    """Finds the turns of one conversation by rendering it up to each turn, never by searching for markers.

    `last_control_end(text)` is the end of the last control token in a text that the template wrote, or None.
    """

    def __init__(
        self,
        template: ChatTemplate,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        *,
        mark: str,
        control_ends: Callable[[str], list[int]],
    ) -> None:
        self._template = template
        self._messages = list(messages)
        self._tools = tools
        self._mark = mark
        self._control_ends = control_ends

    def whole(self) -> str:
        """The text of the whole conversation. Raises TemplateError."""
        return self._render(self._messages)

    def turn(self, place: int, weight: float) -> Turn:
        """The turn at `place`. Raises TemplateError when the template refuses the conversation."""
        if self._messages[place]["role"] != "assistant":
            return self._asked(place, weight)
        try:
            text = self._render(self._messages[: place + 1])
        except TemplateError:
            return self._inside_whole(place, weight)
        remarks: list[str] = []
        try:
            prompt = self._render(self._messages[:place], reply=True)
            start = _common(prompt, text)
            if start < len(prompt):
                remarks.append("prompt-not-a-prefix")
                start = min(start, self._start_by_difference(place, text))
        except TemplateError:
            remarks.append("prompt-not-rendered")
            start = self._start_by_difference(place, text)
        stop, closes = self._end(text, start)
        return Turn(weight, text, start, stop, closes, tuple(remarks))

    def _asked(self, place: int, weight: float) -> Turn:
        """A turn of another role: trained from the first letter that it says to the end of the turn."""
        before = self._messages[:place]
        stand_in = {**self._messages[place], **self._stand_in(place)}
        try:
            text = self._render(self._messages[: place + 1])
            other = self._render([*before, stand_in])
        except TemplateError:
            text = self.whole()
            other = self._render([*before, stand_in, *self._messages[place + 1 :]])
            start, stop = _difference(other, text)
            # What follows may be another turn's: only what this one says is sure to be its own.
            return Turn(weight, text[:stop], start, stop, False, ("part-not-rendered",), False)
        start, stop = _difference(other, text)
        for end in self._control_ends(text[start:]):
            if start + end >= stop:
                return Turn(weight, text, start, start + end, True, (), False)
        return Turn(weight, text[:stop], start, stop, False, (), False)

    def _render(self, messages: Sequence[Message], *, reply: bool = False) -> str:
        return self._template.render(messages, self._tools, reply)

    def _end(self, text: str, start: int) -> tuple[int, bool]:
        """Where the trained text ends: after its last control token, if only space follows that."""
        ends = self._control_ends(text[start:])
        if ends and not text[start + ends[-1] :].strip():
            return start + ends[-1], True
        return len(text), False

    def _start_by_difference(self, place: int, text: str) -> int:
        """Where the text begins to depend on what the turn at `place` says."""
        other = self._render([*self._messages[:place], self._stand_in(place)])
        return _common(other, text)

    def _inside_whole(self, place: int, weight: float) -> Turn:
        """The turn found in the whole conversation, for templates that refuse a part of it."""
        text = self.whole()
        messages = [*self._messages]
        messages[place] = self._stand_in(place)
        other = self._render(messages)
        start, stop = _difference(other, text)
        for end in self._control_ends(text[start:]):
            if start + end >= stop:
                return Turn(weight, text, start, start + end, True, ("part-not-rendered",))
        return Turn(weight, text, start, stop, False, ("part-not-rendered",))

    def _stand_in(self, place: int) -> Message:
        """A message in its place that says what no message of the row says."""
        (letter,) = unused_characters([self._mark, *strings_in(self._messages)], 1)
        return {"role": self._messages[place]["role"], "content": letter}


def _difference(other: str, text: str) -> tuple[int, int]:
    """Where `text` begins and ends to differ from `other`."""
    start = _common(other, text)
    return start, len(text) - _common(other[start:][::-1], text[start:][::-1])


def _common(a: str, b: str) -> int:
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
