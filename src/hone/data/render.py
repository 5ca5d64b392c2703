"""Conversations to Examples by the model's chat template. It knows turns and tokens, no files and no lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hone.data.assemble import Assembler, Group
from hone.data.control import find_control_tokens, guarded, strings_in, unused_characters
from hone.data.conversation import Conversation
from hone.data.ending import find_ending
from hone.data.example import Example
from hone.data.pieces import Cut, Pieces
from hone.data.template import ChatTemplate, TemplateError
from hone.data.tokenizer import TextTokenizer
from hone.data.turns import Turn, TurnFinder

_CHECKED_ROWS: Final = 3
Objects = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """What became of one Conversation: its Examples, or the template's refusal; and what was noticed."""

    examples: list[Example]
    remarks: tuple[str, ...] = ()
    fault: TemplateError | None = None


@dataclass(slots=True)
class _Draft:
    """A Conversation in text, before its pieces are encoded."""

    conversation: Conversation
    turns: list[Turn] = field(default_factory=list[Turn])
    whole: str = ""
    mark: str = ""
    last: Group | None = None
    remarks: list[str] = field(default_factory=list[str])
    fault: TemplateError | None = None


class Renderer:
    """Turns Conversations into Examples, and messages into the prompt of an inference, by one road.

    For every trained turn the tokens before it are exactly those of the prompt that inference would
    give, and what is trained is what the model is to write then, its end of turn included. Control
    tokens come from the template alone, never from what a message says.
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
        self._checks_left = _CHECKED_ROWS
        self._ending = find_ending(
            template, self._spans, bos=tokenizer.bos_token, eos=tokenizer.eos_token
        )

    def render(self, conversation: Conversation) -> list[Example]:
        """Its Examples; none when nothing of it is trained. Raises TemplateError when the template refuses it."""
        rendered = self.render_all([conversation])[0]
        if rendered.fault is not None:
            raise rendered.fault
        return rendered.examples

    def render_all(self, conversations: Sequence[Conversation]) -> list[Rendered]:
        """What becomes of each. Pieces of all of them are encoded together, which is faster."""
        drafts = [self._draft(conversation) for conversation in conversations]
        self._pieces.fetch(piece for draft in drafts for piece in self._wanted(draft))
        return [self._finish(draft) for draft in drafts]

    def prompt(self, messages: Objects, tools: Objects = ()) -> list[int]:
        """Ids after which the model is to write the next assistant turn. Raises TemplateError.

        `messages` as `Message.as_template` gives them.
        """
        told = [self._told(dict(message)) for message in messages]
        safe, safe_tools, mark, _ = self._guarded(told, tools)
        text = self.template.render(safe, safe_tools, True)
        return [int(i) for ids in self._pieces.ids_of(self._pieces.split(text), mark) for i in ids]

    def _draft(self, conversation: Conversation) -> _Draft:
        draft = _Draft(conversation, remarks=list(conversation.remarks))
        trained = self._trained(conversation)
        if not trained:
            return draft
        told = [self._told(message.as_template()) for message in conversation.messages]
        try:
            messages, tools, draft.mark, spelled = self._guarded(told, conversation.tools)
            draft.remarks += [f"added-text:{token}" for token in sorted(spelled)]
            finder = TurnFinder(
                self.template,
                messages,
                tools,
                mark=draft.mark,
                spans=self._spans,
                ending=self._ending,
            )
            with self.template.remembering():
                draft.turns = [finder.turn(place, weight) for place, weight in trained]
                draft.whole = draft.turns[-1].text
                if trained[-1][0] < len(messages) - 1:
                    draft.whole = finder.whole()
        except TemplateError as fault:
            draft.fault = fault
            return draft
        draft.remarks += self._noticed(draft, [place for place, _ in trained])
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
        if message.get("role") == "developer" and not self.template.mentions("developer"):
            message["role"] = "system"
        return message

    def _guarded(
        self, messages: Objects, tools: Objects
    ) -> tuple[Objects, Objects, str, frozenset[str]]:
        """Messages and tools whose text cannot become a control token, and the mark that this took, or '';
        and the other added tokens that they spell."""
        bodies = [{k: v for k, v in message.items() if k != "role"} for message in messages]
        threatened, spelled = self.control.look(bodies, tools)
        if not threatened:
            return messages, tools, "", spelled
        (mark,) = unused_characters(strings_in([bodies, list(tools)]), 1)
        safe = [
            {"role": message["role"], **guarded(body, self.control, mark)}
            for message, body in zip(messages, bodies, strict=True)
        ]
        return safe, guarded(list(tools), self.control, mark), mark, spelled

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the letters of its control tokens lie."""
        cuts = [part for part in self._pieces.split(text) if isinstance(part, Cut)]
        return [
            (cut.end - len(text[cut.start : cut.end].lstrip()), cut.end)
            for cut in cuts
            if cut.id in self.control.ids
        ]

    def _noticed(self, draft: _Draft, places: Sequence[int]) -> Iterable[str]:
        """Remarks on what the template made of a row, or left out of it."""
        if draft.mark:
            yield "control-text"
        if draft.conversation.tools and not self.template.mentions("tools"):
            yield "tools-not-written"
        messages = draft.conversation.messages
        for turn, place in zip(draft.turns, places, strict=True):
            reasoning = (messages[place].reasoning or "").strip()
            written = turn.text[turn.start : turn.stop]
            if not draft.mark and reasoning not in written:
                yield "reasoning-not-written"
            if not draft.mark and messages[place].content.strip() not in written:
                yield "content-changed"
            if messages[place].tool_calls and not self.template.mentions("tool_calls"):
                yield "calls-not-written"
            if not turn.closes:
                yield "no-end-of-turn"
            yield from turn.remarks

    def _wanted(self, draft: _Draft) -> Iterable[tuple[str, bool, str]]:
        """The pieces that finishing a draft will most likely ask for."""
        if draft.fault is None and draft.turns:
            assembler = self._assembler(draft)
            draft.last = assembler.group(draft.turns[-1], draft.whole)
            yield from assembler.wanted(draft.last, draft.turns[:-1])

    def _finish(self, draft: _Draft) -> Rendered:
        if draft.last is None:
            return Rendered([], tuple(dict.fromkeys(draft.remarks)), draft.fault)
        assembler = self._assembler(draft)
        groups = assembler.groups(draft.turns, draft.whole, draft.last)
        if len(groups) > 1:
            draft.remarks.append("split-row")
        if self._checks_left and not draft.mark:
            self._checks_left -= 1
            if not self._pieces.equal_the_whole(draft.whole):
                draft.remarks.append("pieces-differ")
        examples = [assembler.example(group, draft.conversation.origin) for group in groups]
        return Rendered(examples, tuple(dict.fromkeys(draft.remarks)))

    def _assembler(self, draft: _Draft) -> Assembler:
        return Assembler(self._pieces, self.tokenizer, mark=draft.mark)


def trained_texts(examples: Iterable[Example], tokenizer: TextTokenizer) -> list[str]:
    """Each trained span, decoded."""
    return [
        tokenizer.decode_after(example.input_ids[:a].tolist(), example.input_ids[a:b].tolist())
        for example in examples
        for a, b in example.trained_spans()
    ]
