"""What rows come to, to Examples: Conversations by the model's chat template. It knows turns and tokens, no files and no lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np

from hone.data.assemble import Assembler, Group
from hone.data.control import find_control_tokens, guarded, strings_in, unused_characters
from hone.data.conversation import Content, Conversation, Document, TokenRow, split_thought
from hone.data.encoder import FastEncoder
from hone.data.ending import find_ending
from hone.data.example import Example
from hone.data.learned import Learned
from hone.data.mould import Mould, Moulds, Said, Structure, Wanted
from hone.data.pieces import Pieces
from hone.data.ready import document_examples, token_example
from hone.data.template import ChatTemplate, TemplateError
from hone.data.tokenizer import TextTokenizer
from hone.data.trace import Source
from hone.data.turns import Turn, TurnFinder
from hone.data.wants import Wants
from hone.pack import Int32

_CHECKED_ROWS: Final = 3
Objects = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """What became of one row: its Examples, or the template's refusal; and what was noticed."""

    examples: list[Example]
    remarks: tuple[str, ...] = ()
    fault: TemplateError | None = None


@dataclass(slots=True)
class _Draft:
    """A Conversation in text, before its pieces are encoded: in a mould, or written with care."""

    conversation: Conversation
    trained: list[tuple[int, float]]
    structure: Structure | None = None
    texts: dict[Source, str] = field(default_factory=dict[Source, str])
    mould: Mould | None = None
    wanted: list[Wanted] = field(default_factory=list[Wanted])
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
        train_on: Literal["all", "last", "everything"] = "all",
        encoder: FastEncoder | None = None,
        *,
        careful: bool = False,
        separators: bool = False,
    ) -> None:
        """`encoder` is used where it is given. `careful`: every row by itself, without moulds: for comparison.
        `separators`: what follows the end of a trained turn is trained too."""
        self.tokenizer = tokenizer
        self.template = template
        self.train_on = train_on
        self.control = find_control_tokens(tokenizer, template)
        """What only the template may write."""
        self._pieces = Pieces(tokenizer, self.control, encoder)
        self._careful = careful
        self._wants = Wants(template)
        self._checks_left = _CHECKED_ROWS
        self._ending = find_ending(
            template, self._pieces.control_spans, bos=tokenizer.bos_token, eos=tokenizer.eos_token
        )
        self._moulds = Moulds(template, self._pieces, tokenizer, self._ending)
        self._learned = Learned(
            self._separator() if separators else np.zeros(0, np.int32), train_on == "everything"
        )

    def render(self, content: Content) -> list[Example]:
        """Its Examples; none when nothing of it is trained. Raises TemplateError when the template refuses it."""
        rendered = self.render_all([content])[0]
        if rendered.fault is not None:
            raise rendered.fault
        return rendered.examples

    def render_all(self, contents: Sequence[Content]) -> list[Rendered]:
        """What becomes of each. Pieces of all of them are encoded together, which is faster.

        Raises DataError for token ids that the vocabulary does not have.
        """
        drafts = [self._draft(one) for one in contents if isinstance(one, Conversation)]
        self._pieces.fetch(piece for draft in drafts for piece in self._wanted(draft))
        finished = [self._as_learned(self._finish(draft)) for draft in drafts]
        if len(finished) == len(contents):
            return finished
        told = iter(finished)
        written = iter(self._documents([one for one in contents if isinstance(one, Document)]))
        return [
            next(told)
            if isinstance(one, Conversation)
            else next(written)
            if isinstance(one, Document)
            else self._token_row(one)
            for one in contents
        ]

    def prompt(self, messages: Objects, tools: Objects = ()) -> list[int]:
        """Ids after which the model is to write the next assistant turn. Raises TemplateError.

        `messages` as `Message.as_template` gives them.
        """
        told = [self._told(dict(message)) for message in messages]
        safe, safe_tools, mark, _ = self._guarded(told, tools)
        text = self.template.render(safe, safe_tools, True)
        return [int(i) for ids in self._pieces.ids_of(self._pieces.split(text), mark) for i in ids]

    def _separator(self) -> Int32:
        """[S] the tokens that stand after the end of a plain reply."""
        ending = self._ending
        text = ending.last[ending.end :] if ending is not None and ending.closes else ""
        parts = self._pieces.ids_of(self._pieces.split(text, after=True), "") if text else []
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def _as_learned(self, rendered: Rendered) -> Rendered:
        return replace(rendered, examples=self._learned.of(rendered.examples))

    def _documents(self, documents: Sequence[Document]) -> list[Rendered]:
        made = document_examples(documents, self.tokenizer, self._pieces, self.control)
        return [Rendered([] if one is None else [one], remarks) for one, remarks in made]

    def _token_row(self, row: TokenRow) -> Rendered:
        example = token_example(row, self.tokenizer)
        return Rendered([example] if example.num_trained_tokens else [], row.remarks)

    def _draft(self, conversation: Conversation) -> _Draft:
        trained = self._trained(conversation)
        draft = _Draft(conversation, trained, remarks=list(conversation.remarks))
        if not trained:
            return draft
        known = (
            None
            if self._careful or conversation.tools
            else self._moulds.structure(self._said(conversation), trained, conversation.remarks)
        )
        if known is not None:
            draft.structure, draft.texts = known
            draft.mould = self._moulds.find(*known)
        if draft.mould is None:
            self._write(draft)
        return draft

    def _write(self, draft: _Draft) -> None:
        """Lead the row through the template itself, and find its turns."""
        conversation, trained = draft.conversation, draft.trained
        told = [self._told(message.as_template()) for message in conversation.messages]
        try:
            messages, tools, draft.mark, spelled = self._guarded(told, conversation.tools)
            draft.remarks += [f"added-text:{token}" for token in sorted(spelled)]
            finder = TurnFinder(
                self.template,
                messages,
                tools,
                mark=draft.mark,
                spans=self._pieces.control_spans,
                ending=self._ending,
            )
            with self.template.remembering():
                draft.turns = [finder.turn(place, weight) for place, weight in trained]
                draft.whole = draft.turns[-1].text
                if trained[-1][0] < len(messages) - 1:
                    draft.whole = finder.whole()
        except TemplateError as fault:
            draft.fault = fault
            return
        draft.remarks += self._noticed(draft, [place for place, _ in trained])

    def _trained(self, conversation: Conversation) -> list[tuple[int, float]]:
        """Place and weight of each trained turn."""
        places = [
            i for i, m in enumerate(conversation.messages) if m.role == "assistant" or m.weight
        ]
        if self.train_on == "last":
            places = [i for i in places if conversation.messages[i].role == "assistant"][-1:]
        weights = [conversation.messages[i].weight for i in places]
        found = [(i, 1.0 if w is None else w) for i, w in zip(places, weights, strict=True)]
        return [(i, w) for i, w in found if w > 0]

    def _said(self, conversation: Conversation) -> list[Said] | None:
        """Role, text and reasoning of each message, as `_told` gives them to the template; None where there
        is more to a message than that."""
        said: list[Said] = []
        for message in conversation.messages:
            if message.tool_calls or message.name is not None or message.tool_call_id is not None:
                return None
            content, reasoning = message.content, message.reasoning
            if message.role == "assistant" and reasoning is None and "<think>" in content:
                thought = split_thought(content)
                if thought is not None and self._wants.reasoning:
                    reasoning, content = thought
            said.append((self._role(message.role), content, reasoning))
        return said

    def _role(self, role: str) -> str:
        """The role under the name that the template knows."""
        if role == "developer" and not self.template.mentions("developer"):
            return "system"
        return role

    def _told(self, message: dict[str, Any]) -> dict[str, Any]:
        message = {**message, "role": self._role(message["role"])}
        return self._wants.told(message) if message["role"] == "assistant" else message

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

    def _noticed(self, draft: _Draft, places: Sequence[int]) -> Iterable[str]:
        """Remarks on what the template made of a row, or left out of it."""
        if draft.mark:
            yield "control-text"
        if draft.conversation.tools and not self.template.mentions("tools"):
            yield "tools-not-written"
        messages = draft.conversation.messages
        if self.train_on == "last" and any(m.weight and m.role != "assistant" for m in messages):
            yield "other-roles-left-out"
        for turn, place in zip(draft.turns, places, strict=True):
            thought = split_thought(messages[place].content) if turn.is_reply else None
            reasoning = (thought[0] if thought else messages[place].reasoning or "").strip()
            content = thought[1] if thought else messages[place].content
            written = turn.text[turn.start : turn.stop]
            if not draft.mark and reasoning not in written:
                yield "reasoning-not-written"
            if not draft.mark and content.strip() not in written:
                yield "content-changed"
            if messages[place].tool_calls and not self.template.mentions("tool_calls"):
                yield "calls-not-written"
            if not turn.closes and turn.is_reply:
                yield "no-end-of-turn"
            yield from turn.remarks

    def _wanted(self, draft: _Draft) -> Iterable[tuple[str, bool, str]]:
        if draft.mould is None:
            return self._wanted_with_care(draft)
        draft.wanted = draft.mould.wanted(draft.texts)
        if self._pieces.encodes_one_by_one:
            return ()
        return [(text, continues, "") for text, continues in draft.wanted]

    def _finish(self, draft: _Draft) -> Rendered:
        if draft.mould is not None:
            ids = self._pieces.plain(draft.wanted)
            cast = draft.mould.cast(ids, draft.conversation.origin)
            if cast is not None:
                return Rendered(cast, draft.mould.remarks)
            self._write(draft)
            self._pieces.fetch(self._wanted_with_care(draft))
        rendered = self._assembled(draft)
        if draft.structure is not None and draft.mould is None and rendered.examples:
            self._moulds.make(
                draft.structure,
                draft.texts,
                rendered=rendered.examples,
                remarks=[one for one in rendered.remarks if one != "pieces-differ"],
            )
        return rendered

    def _wanted_with_care(self, draft: _Draft) -> Iterable[tuple[str, bool, str]]:
        """The pieces that finishing a draft will most likely ask for."""
        if draft.fault is None and draft.turns:
            assembler = self._assembler(draft)
            draft.last = assembler.group(draft.turns[-1], draft.whole)
            yield from assembler.wanted(draft.last, draft.turns[:-1])

    def _assembled(self, draft: _Draft) -> Rendered:
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
