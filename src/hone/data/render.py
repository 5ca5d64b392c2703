"""Conversations to Examples by the model's chat template. It knows turns and tokens, no files and no lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hone.data.control import find_control_tokens, guarded, strings_in, unused_characters
from hone.data.conversation import Conversation
from hone.data.example import Example, Origin
from hone.data.pieces import Cut, Part, Pieces
from hone.data.template import ChatTemplate, TemplateFault
from hone.data.tokenizer import TextTokenizer
from hone.data.turns import Turn, TurnFinder


@dataclass(frozen=True, slots=True)
class Rendered:
    """What became of one Conversation: its Examples, or the template's refusal; and what was noticed."""

    examples: list[Example]
    remarks: tuple[str, ...] = ()
    fault: TemplateFault | None = None


@dataclass(slots=True)
class _Group:
    """Turns that become one Example: `parts[:split]` encode the prompt of `turns[-1]`, the rest what follows."""

    turns: list[Turn]
    parts: list[Part]
    split: int
    text: str


@dataclass(slots=True)
class _Draft:
    """A Conversation in text, before its pieces are encoded."""

    origin: Origin
    turns: list[Turn] = field(default_factory=list[Turn])
    whole: str = ""
    mark: str = ""
    last: _Group | None = None
    remarks: list[str] = field(default_factory=list[str])
    fault: TemplateFault | None = None


class Renderer:
    """Turns Conversations into Examples, and messages into the prompt of an inference, by one road.

    For every trained turn the tokens before it are exactly those of the prompt that inference would
    give, and what is trained is what the model is to write then, its end of turn included.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        train_on: Literal["all", "last"] = "all",
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.train_on = train_on
        self.control = find_control_tokens(tokenizer, template)
        """What only the template may write."""
        self._pieces = Pieces(tokenizer, self.control)

    def render(self, conversation: Conversation) -> list[Example]:
        """Its Examples; none when nothing of it is trained. Raises TemplateFault when the template refuses it."""
        rendered = self.render_all([conversation])[0]
        if rendered.fault is not None:
            raise rendered.fault
        return rendered.examples

    def render_all(self, conversations: Sequence[Conversation]) -> list[Rendered]:
        """What becomes of each. Pieces of all of them are encoded together, which is faster."""
        drafts = [self._draft(conversation) for conversation in conversations]
        self._pieces.fetch(piece for draft in drafts for piece in self._wanted(draft))
        return [self._finish(draft) for draft in drafts]

    def prompt(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """Ids after which the model is to write the next assistant turn. Raises TemplateFault.

        `messages` as `Message.as_template` gives them.
        """
        messages, tools, mark = self._guarded(messages, tools)
        text = self.template.render(messages, tools, True)
        return [int(i) for ids in self._pieces.ids_of(self._pieces.split(text), mark) for i in ids]

    def _draft(self, conversation: Conversation) -> _Draft:
        draft = _Draft(conversation.origin, remarks=list(conversation.remarks))
        trained = self._trained(conversation)
        if not trained:
            return draft
        messages = [self._told(message.as_template()) for message in conversation.messages]
        try:
            messages, tools, draft.mark = self._guarded(messages, conversation.tools)
            if draft.mark:
                draft.remarks.append("control-text")
            (sentinel,) = unused_characters([draft.mark, *strings_in(messages)], 1)
            finder = TurnFinder(
                self.template, messages, tools, sentinel=sentinel, control_ends=self._control_ends
            )
            draft.turns = [finder.turn(place, weight) for place, weight in trained]
            draft.whole = draft.turns[-1].text
            if trained[-1][0] < len(messages) - 1:
                draft.whole = finder.whole()
        except TemplateFault as fault:
            draft.fault = fault
        return draft

    def _trained(self, conversation: Conversation) -> list[tuple[int, float]]:
        """Place and weight of each trained turn."""
        places = [i for i, one in enumerate(conversation.messages) if one.role == "assistant"]
        if self.train_on == "last":
            places = places[-1:]
        weights = [conversation.messages[i].weight for i in places]
        found = [(i, 1.0 if w is None else w) for i, w in zip(places, weights, strict=True)]
        return [(i, w) for i, w in found if w > 0]

    def _told(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["role"] == "developer" and not self.template.mentions("developer"):
            message["role"] = "system"
        return message

    def _guarded(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]], str]:
        """Messages and tools whose text cannot become a control token, and the mark that this took, or ''."""
        bodies = [{k: v for k, v in message.items() if k != "role"} for message in messages]
        if not self.control.threaten(strings_in([bodies, tools])):
            return messages, tools, ""
        (mark,) = unused_characters(strings_in([bodies, tools]), 1)
        safe = [
            {"role": message["role"], **guarded(body, self.control, mark)}
            for message, body in zip(messages, bodies, strict=True)
        ]
        return safe, guarded(tools, self.control, mark), mark

    def _control_ends(self, text: str) -> list[int]:
        return [
            part.end
            for part in self._pieces.split(text)
            if isinstance(part, Cut) and part.id in self.control.ids
        ]

    def _wanted(self, draft: _Draft) -> Iterable[tuple[str, bool, str]]:
        """The pieces that finishing a draft will most likely ask for."""
        if draft.fault is not None or not draft.turns:
            return
        draft.last = group = self._group(draft.turns[-1], draft.whole)
        for part in group.parts:
            if not isinstance(part, Cut):
                yield part.text, part.continues, draft.mark
        places = [turn.start for turn in draft.turns[:-1]]
        for part in group.parts[: group.split]:
            while places and places[0] < part.stop:
                at = places.pop(0) - part.start
                if at > 0 and not isinstance(part, Cut):
                    yield part.text[:at], part.continues, draft.mark
                    yield part.text[at:], True, draft.mark

    def _finish(self, draft: _Draft) -> Rendered:
        remarks = list(
            dict.fromkeys([*draft.remarks, *(r for t in draft.turns for r in t.remarks)])
        )
        if draft.fault is not None:
            return Rendered([], tuple(remarks), draft.fault)
        groups = self._groups(draft)
        if any(not turn.closes for turn in draft.turns):
            remarks.append("no-end-of-turn")
        if len(groups) > 1:
            remarks.append("split-row")
        return Rendered([self._example(group, draft) for group in groups], tuple(remarks))

    def _groups(self, draft: _Draft) -> list[_Group]:
        """Each turn joins a later one whose text begins with all of its own, if its tokens stay those of
        inference there; otherwise it stands alone."""
        groups: list[_Group] = []
        for turn in reversed(draft.turns):
            home = next((g for g in groups if self._joins(turn, g, draft.mark)), None)
            if home is not None:
                home.turns.insert(0, turn)
                continue
            alone = draft.last if turn is draft.turns[-1] else None
            groups.append(alone or self._group(turn, draft.whole))
        return groups[::-1]

    def _group(self, turn: Turn, whole: str) -> _Group:
        """A group of one; what the conversation says after it is kept as context where it still fits."""
        text = turn.text
        if turn.closes and whole.startswith(text[: turn.stop]):
            text = whole
        before = self._pieces.split(text[: turn.start])
        after_text = bool(before) and not isinstance(before[-1], Cut)
        after = self._pieces.split(
            text[turn.start :],
            after=after_text or (turn.start > 0 and not self.tokenizer.prefixes_every_piece),
        )
        return _Group([turn], [*before, *after], len(before), text)

    def _joins(self, turn: Turn, group: _Group, mark: str) -> bool:
        if not turn.closes or not group.text.startswith(turn.text[: turn.stop]):
            return False
        before = group.parts[: group.split]
        if not any(isinstance(part, Cut) and part.end == turn.stop for part in before):
            return False
        for part in before:
            if part.start < turn.start < part.stop:
                return isinstance(part, Cut) is False and self._is_seam(part, turn.start, mark)
        return True

    def _is_seam(self, part: Part, place: int, mark: str) -> bool:
        """Whether cutting a piece at `place` leaves its tokens as they are."""
        assert not isinstance(part, Cut)
        at = place - part.start
        head = self._pieces.ids(part.text[:at], continues=part.continues, mark=mark)
        tail = self._pieces.ids(part.text[at:], continues=True, mark=mark)
        both = self._pieces.ids(part.text, continues=part.continues, mark=mark)
        return np.array_equal(np.concatenate((head, tail)), both)

    def _example(self, group: _Group, draft: _Draft) -> Example:
        last = group.turns[-1]
        ids = self._pieces.ids_of(group.parts, draft.mark)
        ends = np.cumsum([0, *(len(one) for one in ids)])
        total = int(ends[-1])
        weight = np.zeros(total + (0 if last.closes else 1), dtype=np.float32)
        for turn in group.turns[:-1]:
            start = self._token_at(group, ends, turn.start, draft.mark)
            stop = next(
                int(ends[i + 1])
                for i, part in enumerate(group.parts[: group.split])
                if isinstance(part, Cut) and part.end == turn.stop
            )
            weight[start:stop] = turn.weight
        start = int(ends[group.split])
        stop = total
        for i in range(group.split, len(group.parts)):
            part = group.parts[i]
            if isinstance(part, Cut) and part.end == last.stop - last.start and last.closes:
                stop = int(ends[i + 1])
        weight[start:stop] = last.weight
        if not last.closes and self.tokenizer.eos_id is not None:
            ids.append(np.array([self.tokenizer.eos_id], dtype=np.int32))
            weight[total] = last.weight
        elif not last.closes:
            weight = weight[:total]
        weight[:1] = 0  # nothing comes before the first token
        input_ids = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32)
        return Example(input_ids.astype(np.int32), weight, draft.origin)

    def _token_at(self, group: _Group, ends: Any, place: int, mark: str) -> int:
        """Index of the first token of the character at `place`, which is a seam."""
        for i, part in enumerate(group.parts[: group.split]):
            if place <= part.start:
                return int(ends[i])
            if place < part.stop:
                assert not isinstance(part, Cut)
                head = self._pieces.ids(
                    part.text[: place - part.start], continues=part.continues, mark=mark
                )
                return int(ends[i]) + len(head)
        return int(ends[group.split])


def trained_texts(examples: Iterable[Example], tokenizer: TextTokenizer) -> list[str]:
    """Each trained span, decoded."""
    return [
        tokenizer.decode_after(example.input_ids[:a].tolist(), example.input_ids[a:b].tolist())
        for example in examples
        for a, b in example.trained_spans()
    ]
