"""Moulds: what the template writes around the texts of every row of one structure, split into turns and tokens once.

A mould is made by leading a row down the ordinary road (`turns`, `pieces`, `assemble`) with a letter in place of
each text, which a trace of the template (`trace`) proves to be sound. Casting a row is then to encode its texts
between words that are known. It knows no lengths and no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

from hone.data.assemble import Assembler, Group
from hone.data.control import ControlTokens
from hone.data.ending import Ending
from hone.data.example import Example, Origin
from hone.data.pieces import SPACE, Cut, Part, Piece, Pieces
from hone.data.template import ChatTemplate, TemplateError
from hone.data.tokenizer import TextTokenizer
from hone.data.trace import Derived, Question, Source, Trace, TracedTemplate, UntraceableError
from hone.data.turns import Turn, TurnFinder
from hone.pack import Float32, Int32

_LETTERS: Final = range(0xF0000, 0xFFFFD)
_STRUCTURES: Final = 1024
_MOULDS_EACH: Final = 8
_MESSAGES: Final = 64  # longer conversations are too seldom alike

Wanted = tuple[str, bool]
"""A piece of text, and whether it continues other text."""
Said = tuple[str, str, str | None]
"""A message as the template gets it: role, text, reasoning."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What rows must have in common to be written alike: roles, which of them reason, what is trained."""

    roles: tuple[str, ...]
    thinks: tuple[bool, ...]
    trained: tuple[tuple[int, float], ...]
    remarks: tuple[str, ...]


class _UnfitError(Exception):
    """No mould can be made for this structure."""


@dataclass(frozen=True, slots=True)
class _Bare:
    """Asks that a text neither is empty nor has a space at one end, which a neighbouring token would swallow."""

    derived: Derived
    place: int

    def holds(self, texts: Mapping[Source, str]) -> bool:
        text = self.derived.of(texts)
        return bool(text) and text[self.place] not in SPACE


@dataclass(frozen=True, slots=True)
class _Slot:
    """One part of an Example: known ids, or words and texts to be encoded together."""

    ids: Int32 | None
    words: tuple[str | Derived, ...] = ()
    continues: bool = False

    def text(self, texts: Mapping[Source, str]) -> str:
        """What is to be encoded for a row."""
        return "".join([one if isinstance(one, str) else one.of(texts) for one in self.words])


@dataclass(frozen=True, slots=True)
class _Seam:
    """A turn that begins within a slot: valid in a row only where cutting there leaves the tokens as they are."""

    slot: int
    head: _Slot
    tail: _Slot


@dataclass(frozen=True, slots=True)
class _Sheet:
    """One Example to be. `spans`: first slot, slot after the last, weight, and the seam within the first, if any."""

    slots: tuple[_Slot, ...]
    spans: tuple[tuple[int, int, float, _Seam | None], ...]


@dataclass(frozen=True, slots=True)
class Mould:
    """The Examples of every row of one structure whose texts give the same answers."""

    questions: tuple[Question | _Bare, ...]
    sheets: tuple[_Sheet, ...]
    remarks: tuple[str, ...]

    def fits(self, texts: Mapping[Source, str]) -> bool:
        """Whether a row with these texts is written this way."""
        return all(question.holds(texts) for question in self.questions)

    def wanted(self, texts: Mapping[Source, str]) -> list[Wanted]:
        """The pieces of text to be encoded for a row, in the order in which `cast` takes their ids."""
        found: list[Wanted] = []
        for sheet in self.sheets:
            for slot in sheet.slots:
                if slot.ids is None:
                    found.append((slot.text(texts), slot.continues))
            for _, _, _, seam in sheet.spans:
                if seam is not None:
                    found += [
                        (part.text(texts), part.continues)
                        for part in (seam.head, seam.tail)
                        if part.ids is None
                    ]
        return found

    def cast(self, encoded: Iterable[Int32], origin: Origin) -> list[Example] | None:
        """The Examples of a row, from the ids of what was wanted; None where a turn begins within a token."""
        ids = iter(encoded)
        examples = [_cast(sheet, ids, origin) for sheet in self.sheets]
        whole = [example for example in examples if example is not None]
        return whole if len(whole) == len(examples) else None


def _cast(sheet: _Sheet, ids: Iterator[Int32], origin: Origin) -> Example | None:
    found = [slot.ids if slot.ids is not None else next(ids) for slot in sheet.slots]
    starts = [0, *accumulate(map(len, found))]
    joined: Int32 = np.concatenate(found)
    weight: Float32 = np.zeros(starts[-1], dtype=np.float32)
    is_whole = True
    for first, after, value, seam in sheet.spans:
        begin = starts[first]
        if seam is not None:
            head = seam.head.ids if seam.head.ids is not None else next(ids)
            tail = seam.tail.ids if seam.tail.ids is not None else next(ids)
            is_whole &= _are_joined(found[seam.slot], head, tail)
            begin += len(head)
        weight[begin : starts[after]] = value
    weight[:1] = 0  # nothing comes before the first token
    return Example(joined, weight, origin) if is_whole else None


def _are_joined(both: Int32, head: Int32, tail: Int32) -> bool:
    at = len(head)
    return (
        at + len(tail) == len(both)
        and np.array_equal(both[:at], head)
        and np.array_equal(both[at:], tail)
    )


class Moulds:
    """The moulds of one tokenizer and template, by structure of the row."""

    def __init__(
        self,
        template: ChatTemplate,
        pieces: Pieces,
        tokenizer: TextTokenizer,
        ending: Ending | None,
    ) -> None:
        self._template = template
        self._ending = ending
        self._pieces = pieces
        self._tokenizer = tokenizer
        self._every = ControlTokens(tokenizer.added, template.literals)
        self._flags = {token.id: (token.lstrip, token.rstrip) for token in tokenizer.added}
        self._kept: dict[Structure, list[Mould] | None] = {}
        self._traced = _traced(template)

    def structure(
        self,
        said: Sequence[Said] | None,
        trained: Sequence[tuple[int, float]],
        remarks: Sequence[str],
    ) -> tuple[Structure, dict[Source, str]] | None:
        """The structure of a row and its texts; None for a row that no mould is made for."""
        if self._traced is None or said is None or len(said) > _MESSAGES:
            return None
        texts: dict[Source, str] = {}
        for place, (_, content, reasoning) in enumerate(said):
            texts[place, "content"] = content
            if reasoning is not None:
                texts[place, "reasoning"] = reasoning
        if self._every.threatened_by(texts.values()):
            return None
        roles = tuple([role for role, _, _ in said])
        thinks = tuple([reasoning is not None for _, _, reasoning in said])
        return Structure(roles, thinks, tuple(trained), tuple(remarks)), texts

    def find(self, structure: Structure, texts: Mapping[Source, str]) -> Mould | None:
        """The mould that this row fits, if one was made."""
        for mould in self._kept.get(structure) or ():
            if mould.fits(texts):
                return mould
        return None

    def make(
        self,
        structure: Structure,
        texts: Mapping[Source, str],
        *,
        rendered: Sequence[Example],
        remarks: Sequence[str],
    ) -> None:
        """Make the mould of a row that was `rendered` with care; kept only if it casts the same Examples.

        The first row of a structure only makes it known.
        """
        if structure not in self._kept:
            if len(self._kept) >= _STRUCTURES:
                self._kept.clear()
            self._kept[structure] = []
            return
        kept = self._kept[structure]
        if kept is None or len(kept) >= _MOULDS_EACH:
            return
        try:
            mould = self._made(structure, texts, tuple(remarks))
            cast = mould.cast(self._pieces.plain(mould.wanted(texts)), rendered[0].origin)
        except (_UnfitError, UntraceableError, TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError):  # fmt: skip
            self._kept[structure] = None
            return
        if cast is None:
            return
        same = len(cast) == len(rendered) and all(
            np.array_equal(a.input_ids, b.input_ids) and np.array_equal(a.weight, b.weight)
            for a, b in zip(cast, rendered, strict=True)
        )
        if same:
            kept.append(mould)
        else:
            self._kept[structure] = None

    def _made(
        self, structure: Structure, texts: Mapping[Source, str], remarks: tuple[str, ...]
    ) -> Mould:
        assert self._traced is not None
        trained = structure.trained
        letters = _Letters()
        trace = Trace(self._traced, texts)
        messages: list[dict[str, object]] = []
        for place, role in enumerate(structure.roles):
            content: object = trace.text((place, "content"))
            if self._template.form.parts:
                content = [{"type": "text", "text": content}]
            message: dict[str, object] = {"role": role, "content": content}
            if (place, "reasoning") in texts:
                said = trace.text((place, "reasoning"))
                message["reasoning_content"] = message["thinking"] = said
            messages.append(message)
        finder = TurnFinder(
            _Lettered(self._template, trace, letters),
            messages,
            (),
            mark="",
            spans=self._pieces.control_spans,
            ending=self._ending,
        )
        turns = [finder.turn(place, weight) for place, weight in trained]
        if any(turn.remarks for turn in turns):
            raise _UnfitError
        for turn, (place, _) in zip(turns, trained, strict=True):
            if (place, "reasoning") in texts:
                letters.demand((place, "reasoning"), turn.text[turn.start : turn.stop])
        whole = turns[-1].text if trained[-1][0] == len(messages) - 1 else finder.whole()
        seams: dict[tuple[int, int], None] = {}

        def seam(piece: Piece, at: int) -> bool:
            seams[piece.start, at] = None
            return True

        assembler = Assembler(self._pieces, self._tokenizer, mark="", is_seam=seam)
        groups = assembler.groups(turns, whole, assembler.group(turns[-1], whole))
        sheets = tuple(self._sheet(group, letters) for group in groups)
        bare = [one for group in groups for one in self._bare(group, letters)]
        return Mould((*trace.questions, *dict.fromkeys(bare)), sheets, remarks)

    def _sheet(self, group: Group, letters: _Letters) -> _Sheet:
        last = group.turns[-1]
        if not last.closes:
            raise _UnfitError
        parts = [*group.before, *group.after]
        slots = tuple(self._slot(part, letters) for part in parts)
        first = len(group.before)
        end = next(
            (
                place + 1
                for place, part in enumerate(group.after)
                if isinstance(part, Cut) and part.end == last.stop - last.start
            ),
            None,
        )
        if end is None:
            raise _UnfitError
        spans = [self._span(group.before, turn, letters) for turn in group.turns[:-1]]
        return _Sheet(slots, (*spans, (first, first + end, last.weight, None)))

    def _span(
        self, before: Sequence[Part], turn: Turn, letters: _Letters
    ) -> tuple[int, int, float, _Seam | None]:
        after = next(
            place + 1
            for place, part in enumerate(before)
            if isinstance(part, Cut) and part.end == turn.stop
        )
        for place, part in enumerate(before):
            if turn.start <= part.start:
                return place, after, turn.weight, None
            if turn.start < part.stop:
                if not isinstance(part, Piece):
                    raise _UnfitError
                at = turn.start - part.start
                head = self._words(part.text[:at], part.continues, letters)
                tail = self._words(part.text[at:], True, letters)
                return place, after, turn.weight, _Seam(place, head, tail)
        raise _UnfitError

    def _slot(self, part: Part, letters: _Letters) -> _Slot:
        if isinstance(part, Cut):
            return _Slot(np.array([part.id], dtype=np.int32))
        return self._words(part.text, part.continues, letters)

    def _words(self, text: str, continues: bool, letters: _Letters) -> _Slot:
        words = letters.split(text)
        if all(isinstance(word, str) for word in words):
            return _Slot(self._pieces.ids(text, continues=continues, mark=""))
        return _Slot(None, words, continues)

    def _bare(self, group: Group, letters: _Letters) -> Iterable[_Bare]:
        """Texts whose spaces a neighbouring token would swallow."""
        last = group.turns[-1]
        for text, parts in (
            (group.text[: last.start], group.before),
            (group.text[last.start :], group.after),
        ):
            for part in parts:
                if not isinstance(part, Cut):
                    continue
                left, right = self._flags[part.id]
                if right and part.stop < len(text) and (one := letters.known(text[part.stop])):
                    yield _Bare(one, 0)
                if left and part.start > 0 and (one := letters.known(text[part.start - 1])):
                    yield _Bare(one, -1)


def _traced(template: ChatTemplate) -> TracedTemplate | None:
    if template.writes_today:
        return None
    try:
        return TracedTemplate(template.source)
    except (UntraceableError, TemplateError):
        return None


class _Letters:
    """One letter for each text that a trace met, and back."""

    def __init__(self) -> None:
        self._letters: dict[Derived, str] = {}
        self._texts: dict[str, Derived] = {}

    def of(self, derived: Derived) -> str:
        """The letter of a text."""
        letter = self._letters.get(derived)
        if letter is None:
            letter = self._letters[derived] = chr(_LETTERS[len(self._letters)])
            self._texts[letter] = derived
        return letter

    def known(self, letter: str) -> Derived | None:
        """The text of a letter, None for an ordinary one."""
        return self._texts.get(letter)

    def demand(self, source: Source, text: str) -> None:
        """Raise unless a text of the row is written in `text`."""
        if not any(d.source == source for one in text if (d := self._texts.get(one))):
            raise _UnfitError

    def split(self, text: str) -> tuple[str | Derived, ...]:
        """Words and texts, in order."""
        found: list[str | Derived] = []
        for letter in text:
            derived = self._texts.get(letter)
            if derived is not None:
                found.append(derived)
            elif found and isinstance(found[-1], str):
                found[-1] += letter
            else:
                found.append(letter)
        return tuple(found)


class _Lettered:
    """A chat template that writes letters for texts."""

    def __init__(self, template: ChatTemplate, trace: Trace, letters: _Letters) -> None:
        self._template = template
        self._trace = trace
        self._letter = letters.of

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """As of ChatTemplate."""
        del tools
        variables = self._template.variables(messages, None, add_generation_prompt)
        written = self._trace.render(variables)
        return "".join(
            atom if isinstance(atom, str) else self._letter(atom) for atom in written.atoms
        )
