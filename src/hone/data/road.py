"""One file's rows on their way: read, understood, rendered, measured, counted. It knows no storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hone.config.sections import DataSection
from hone.data.conversation import Content, Conversation
from hone.data.example import Example, Origin
from hone.data.formats import RowFormat
from hone.data.ledger import Ledger
from hone.data.lengths import TOO_LONG, Left, shorten
from hone.data.reader import Row
from hone.data.remarks import SENTENCES
from hone.data.render import Rendered, Renderer

_BATCH_ROWS: Final = 64
_BATCH_BYTES: Final = 4 * 2**20

_TOLD: Final = {
    "unknown-key": "a key that nothing here reads was ignored: {}",
    "refusal-as-content": "the content is null and the refusal was taken for it",
    "empty-assistant": "an assistant turn is empty: only its end is trained",
    "arguments-not-json": "arguments of a tool call are not a JSON object and stay text",
    "bare-tool": 'a tool without {{"type": "function"}} around it was given one',
    "duplicate-call-id": "two tool calls have one id",
    "result-without-call": "a tool result answers no call",
    "call-without-result": "a tool call has no result",
    "control-text": "a message spells a control token; it is trained as ordinary text",
    "added-text": "a message spells {}, an added token that is no control token: it is encoded as the tokenizer does",
    "no-end-of-turn": "the template writes no end-of-turn token: the end-of-text token is trained after the turn",
    "prompt-not-a-prefix": "what the template writes before a reply at inference is not how it writes the turn afterwards",
    "prompt-not-rendered": "the template cannot write the prompt of a turn alone; its beginning was found by comparison",
    "part-not-rendered": "the template cannot write the conversation up to a turn; the turn was found by comparison",
    "pieces-differ": "this tokenizer gives a text other tokens at once than piece by piece between its added tokens",
    "split-row": "the template rewrites earlier turns: the row became one Example per trained turn",
    "tools-not-written": "the template does not write tools: the model will not see them",
    "calls-not-written": "the template does not write tool calls: they are not trained",
    "content-changed": "the template leaves out or changes part of what an assistant turn says: what it writes is trained",
    "reasoning-not-written": "the template does not write reasoning: it is not trained",
    "blank-lines": "{} blank lines were skipped",
    "byte-order-mark": "the byte order mark at the start was removed",
}


def sentences(ledger: Ledger) -> list[tuple[str, str]]:
    """Every notice of a ledger: its code, and a sentence with how many rows and which is the first."""
    found: list[tuple[str, str]] = []
    for code, tally in ledger.notices.items():
        name = code.partition(":")[0]
        text = remark_sentence(code)
        if tally.lines:
            count = f"{tally.count:,} row{'' if tally.count == 1 else 's'}"
            text += f" ({count}, first {ledger.names(tally)[0]})"
        found.append((name, text))
    return found


def remark_sentence(code: str) -> str:
    """What a code, perhaps with a detail behind a colon, means."""
    name, _, detail = code.partition(":")
    return (_TOLD.get(name) or SENTENCES.get(name, name)).format(detail)


@dataclass(frozen=True, slots=True)
class RoadRow:
    """One row at the end of the road. `uncut` are its Examples before the length limit; `dropped` says
    why it is not trained, or is empty."""

    origin: Origin
    examples: list[Example]
    uncut: list[Example]
    dropped: str = ""
    shortened: tuple[Example | None, ...] = ()
    """What a policy left of each uncut Example, the last beside the last; empty where the limit changed nothing."""


class Road:
    """Leads rows of one file to Examples and keeps the ledger.

    What preview shows and what training stores both come from here. `shape` is that of the rows, where it
    is known already.
    """

    def __init__(
        self,
        section: DataSection,
        renderer: Renderer,
        *,
        max_length: int,
        file: str,
        shape: str | None = None,
    ) -> None:
        self._section = section
        self._renderer = renderer
        self._max_length = max_length
        self._format = row_format(section, shape)
        self.too_long: list[tuple[int, int]] = []
        """Line and tokens of each row that the limit refuses."""
        self.ledger = Ledger(file=file)

    def lead(self, rows: Iterable[Row]) -> Iterator[RoadRow]:
        """Each row at its end, dropped ones too; what the limit refuses comes uncut. Raises DataError."""
        source = iter(rows)
        while batch := _batch(source):
            conversations = [self._format.read(row) for row in batch]
            self.ledger.shape = self._format.shape
            for conversation, rendered in zip(
                conversations, self._renderer.render_all(conversations), strict=True
            ):
                yield self._measure(conversation, rendered)

    def pass_over(self, rows: Iterable[Row]) -> None:
        """Read rows that are not wanted: they are checked, and settle the shape. Raises DataError."""
        for row in rows:
            self._format.read(row)

    def _measure(self, conversation: Content, rendered: Rendered) -> RoadRow:
        line = conversation.origin.line
        self.ledger.read += 1
        for remark in rendered.remarks:
            self.ledger.notice(remark, line)
        examples = [one for one in rendered.examples if one.num_trained_tokens]
        left = Left(())
        longest = max((one.num_tokens for one in examples), default=0)
        if rendered.fault is not None:
            left = Left((), rendered.fault.what)
        elif not examples:
            left = Left((), "nothing to train on")
        elif longest > self._max_length:
            left = self._shorten(conversation, examples, longest)
        kept = [one for one in left.examples or examples if one is not None]
        if left.dropped:
            self.ledger.drop(left.dropped, line)
            kept = []
        else:
            self._count(kept)
        return RoadRow(conversation.origin, kept, examples, left.dropped, left.examples)

    def _shorten(self, content: Content, examples: list[Example], longest: int) -> Left:
        policy, line = self._section.too_long, content.origin.line
        if policy == "refuse":
            self.too_long.append((line, longest))
            return Left(())
        if policy == "drop":
            left = Left((None,) * len(examples), TOO_LONG)
        else:
            left = shorten(policy, content, examples, self._max_length, self._rendered)
        kept = [one for one in left.examples if one is not None]
        self.ledger.lost_tokens += _tokens(examples) - _tokens(kept)
        self.ledger.lost_trained_tokens += _trained_tokens(examples) - _trained_tokens(kept)
        if not left.dropped:
            self.ledger.cut.add(line)
        return left

    def _rendered(self, conversation: Conversation) -> list[Example]:
        made = self._renderer.render_all([conversation])[0]
        return [one for one in made.examples if one.num_trained_tokens]

    def _count(self, examples: list[Example]) -> None:
        self.ledger.kept += 1
        self.ledger.examples += len(examples)
        self.ledger.tokens += _tokens(examples)
        self.ledger.trained_tokens += _trained_tokens(examples)


def _tokens(examples: Iterable[Example]) -> int:
    return sum(one.num_tokens for one in examples)


def _trained_tokens(examples: Iterable[Example]) -> int:
    return sum(one.num_trained_tokens for one in examples)


def row_format(section: DataSection, shape: str | None = None) -> RowFormat:
    """How the rows that `section` names are read. `shape` is theirs, where it is known."""
    return RowFormat(
        shape or section.format,
        section.columns,
        section.tags,
        input_heading=section.input_heading,
    )


def _batch(source: Iterator[Row]) -> list[Row]:
    """The next rows that are rendered together: enough to be fast, few enough to be held."""
    rows: list[Row] = []
    num_bytes = 0
    for row in source:
        rows.append(row)
        num_bytes += row.num_bytes
        if len(rows) == _BATCH_ROWS or num_bytes >= _BATCH_BYTES:
            break
    return rows
