"""Where each trained turn begins and ends in what the template writes. It knows text, no tokens ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hone.data.control import strings_in, unused_characters
from hone.data.ending import Ending, Spans, common_length
from hone.data.template import TemplateError

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


class Writer(Protocol):
    """What writes messages; `hone.data.template.ChatTemplate` is one."""

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text. Raises TemplateError."""
        ...


class TurnFinder:
    """Finds the turns of one conversation by rendering it up to each turn, never by searching for markers.

    `spans(text)`: where the control tokens of a text that the template wrote lie. `ending`: how the
    template ends a plain turn, as far as that is known.
    """

    def __init__(
        self,
        template: Writer,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        *,
        mark: str,
        spans: Spans,
        ending: Ending | None,
    ) -> None:
        self._template = template
        self._messages = list(messages)
        self._tools = tools
        self._mark = mark
        self._spans = spans
        self._ending = ending

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
        except TemplateError:
            remarks.append("prompt-not-rendered")
            start = self._start_by_difference(place, text)
        else:
            start = len(prompt)
            if not text.startswith(prompt):
                text, start, found = self._after_other_history(place, prompt, text)
                remarks += [] if found else ["prompt-not-a-prefix"]
        text, stop, closes = self._end(text, start)
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
        for _, end in self._spans(text[start:]):
            if start + end >= stop:
                return Turn(weight, text, start, start + end, True, (), False)
        return Turn(weight, text[:stop], start, stop, False, (), False)

    def _after_other_history(self, place: int, prompt: str, text: str) -> tuple[str, int, bool]:
        """The turn after the prompt of inference, where the template writes what precedes it otherwise
        once the turn is there; and whether the turn's heading was found, so that this can be done.

        Otherwise the text stays, and the turn starts where it leaves the prompt or begins to say something.
        """
        said = self._start_by_difference(place, text)
        common = common_length(prompt, text)
        try:
            before = self._render(self._messages[:place])
        except TemplateError:
            return text, said, False
        if text.startswith(before):
            return text, min(common, said), False
        heading = prompt[len(before) :] if prompt.startswith(before) else ""
        at = text.rfind(heading, 0, said) if heading.strip() else -1
        if at < 0:
            return text, said, False
        return prompt + text[at + len(heading) :], len(prompt), True

    def _render(self, messages: Sequence[Message], *, reply: bool = False) -> str:
        return self._template.render(messages, self._tools, reply)

    def _end(self, text: str, start: int) -> tuple[str, int, bool]:
        """The text, where its trained part ends, and whether that is with a token."""
        known = self._ending
        if known is None:
            return self._end_by_token(text, start, len(text))
        said = len(text) - len(known.last)
        if said >= start and text.endswith(known.last):
            if known.closes:
                return text, said + known.end, True
            text = text[:said] + (known.inside or known.last[: known.end])
            return text, len(text), bool(known.inside)
        if not known.closes:
            return text, len(text), False
        # A turn that calls tools may end with a token of its own.
        rest = known.last[known.end :]
        return self._end_by_token(text, start, len(text) - len(rest) * text.endswith(rest))

    def _end_by_token(self, text: str, start: int, stop: int) -> tuple[str, int, bool]:
        """The end is the last control token of the turn, if only space follows it."""
        ends = [start + b for _, b in self._spans(text[start:stop])]
        if ends and not text[ends[-1] : stop].strip():
            return text, ends[-1], True
        return text, stop, False

    def _start_by_difference(self, place: int, text: str) -> int:
        """Where the text begins to depend on what the turn at `place` says."""
        other = self._render([*self._messages[:place], self._stand_in(place)])
        return common_length(other, text)

    def _inside_whole(self, place: int, weight: float) -> Turn:
        """The turn found in the whole conversation, for templates that refuse a part of it."""
        text = self.whole()
        messages = [*self._messages]
        messages[place] = self._stand_in(place)
        other = self._render(messages)
        start, stop = _difference(other, text)
        remarks = ("part-not-rendered",)
        inside = self._ending.inside if self._ending else ""
        if inside and text.startswith(inside, stop):
            return Turn(weight, text, start, stop + len(inside), True, remarks)
        for _, end in self._spans(text[start:]):
            if start + end >= stop:
                return Turn(weight, text, start, start + end, True, remarks)
        return Turn(weight, text, start, stop, False, remarks)

    def _stand_in(self, place: int) -> Message:
        """A message in its place that says what no message of the row says."""
        (letter,) = unused_characters([self._mark, *strings_in(self._messages)], 1)
        return {"role": self._messages[place]["role"], "content": letter}


def _difference(other: str, text: str) -> tuple[int, int]:
    """Where `text` begins and ends to differ from `other`."""
    start = common_length(other, text)
    return start, len(text) - common_length(other[start:][::-1], text[start:][::-1])
