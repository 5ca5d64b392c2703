"""`preview`: the first rows as training would receive them, token by token. It writes and draws nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Any, Final

import numpy as np

from hone.config.sections import Config
from hone.data.example import Example
from hone.data.ledger import Ledger
from hone.data.lengths import kept_mask
from hone.data.misfit import template_notices
from hone.data.reader import RowReader
from hone.data.render import Renderer, trained_texts
from hone.data.road import Road, RoadRow, sentences
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError
from hone.models.facts import longest_row
from hone.models.source import find_model, read_config
from hone.recipes.rows import training_rows
from hone.recipes.source import load_tokenizer

_LONGEST_CHARACTER: Final = 8  # tokens: more than the bytes of any one character
_SHORTENED: Final = {
    "cut": "cut to",
    "share": "shared out to",
    "oldest": "without its oldest turns, for",
}
NO_LIMIT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens [start, stop) of an Example that fare alike: cut, or kept and trained with one weight."""

    start: int
    stop: int
    weight: float
    is_cut: bool

    @property
    def is_trained(self) -> bool:
        """Whether training receives these tokens, and not as context alone."""
        return self.weight > 0 and not self.is_cut


@dataclass(frozen=True, slots=True)
class Piece:
    """The fewest tokens, from `start` on, that make whole characters."""

    start: int
    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Preview:
    """Rows of a file, as training would receive them."""

    rows: list[RoadRow]
    ledger: Ledger
    tokenizer: TextTokenizer
    template: str
    """Whose chat template it is."""
    max_length: int
    control_ids: frozenset[int]
    template_notices: tuple[tuple[str, str], ...] = ()
    """What does not fit between template and model: codes and sentences."""
    too_long: str = "refuse"
    """What happens to a longer row."""
    found: tuple[str, ...] = ()
    """What was noticed when the rows were found or imported, in sentences."""

    @property
    def notices(self) -> list[str]:
        """What was noticed of the file, of the template and in these rows, in sentences."""
        told = (*self.template_notices, *sentences(self.ledger))
        lost = [self.ledger.sentence()] if self.ledger.lost_tokens else []
        return [*self.found, *(text for _, text in told), *lost]

    def limit(self) -> str:
        """The length limit in words."""
        return "none" if self.max_length == NO_LIMIT else f"{self.max_length:,} tokens"

    def remark(self, row: RoadRow, example: Example) -> str:
        """What the length limit does to one of the row's uncut Examples; empty where it does nothing."""
        if not row.shortened:
            fits = example.num_tokens <= self.max_length
            return (
                "" if fits else f"longer than the limit of {self.limit()}: training would refuse it"
            )
        left = _left(row, row.uncut.index(example))
        if left is example:
            return ""
        if left is None:
            return f"left out: longer than the limit of {self.limit()}"
        mask = kept_mask(self.too_long, example, left, self.max_length)
        anew = left.num_tokens - int(np.count_nonzero(mask))
        return (
            f"{_SHORTENED[self.too_long]} the limit of {self.limit()}: "
            f"{left.num_tokens:,} tokens, {left.num_trained_tokens:,} trained"
            + (f"; the template writes {anew:,} of them anew" if anew else "")
        )

    def runs(self, row: RoadRow, number: int) -> list[Run]:
        """The row's Example `number`, as it was before any cut, in runs of tokens that fare alike."""
        example = row.uncut[number]
        kept = np.full(example.num_tokens, not row.dropped)
        if row.shortened:
            kept = kept_mask(self.too_long, example, _left(row, number), self.max_length)
        elif not row.dropped:
            kept = np.arange(example.num_tokens) < self.max_length
        weight = np.where(kept, example.weight, -1.0)
        edges = [0, *(np.flatnonzero(np.diff(weight)) + 1).tolist(), example.num_tokens]
        return [
            Run(start, stop, max(0.0, float(weight[start])), bool(weight[start] < 0))
            for start, stop in pairwise(edges)
            if start < stop
        ]

    def pieces(self, example: Example, start: int, stop: int) -> Iterator[Piece]:
        """Tokens [start, stop) of an Example with their text."""
        ids = example.input_ids[max(0, start - 1) : stop].tolist()
        at = start - max(0, start - 1)
        while at < len(ids):
            end, text = _whole_characters(ids, at, self.tokenizer)
            yield Piece(stop - len(ids) + at, tuple(ids[at:end]), text)
            at = end

    def is_control(self, token_id: int) -> bool:
        """Whether only the chat template may write this token."""
        return token_id in self.control_ids

    def text(self, example: Example, start: int, stop: int) -> str:
        """The text of tokens [start, stop) of an Example."""
        ids = example.input_ids
        return self.tokenizer.decode_after(
            ids[max(0, start - 1) : start].tolist(), ids[start:stop].tolist()
        )

    def json_lines(self) -> Iterator[dict[str, Any]]:
        """One object for every Example that training would receive."""
        for row in self.rows:
            for example in row.examples:
                yield {
                    "origin": {"file": example.origin.file, "line": example.origin.line},
                    "input_ids": example.input_ids.tolist(),
                    "weight": example.weight.tolist(),
                    "tokens": [self.tokenizer.text_of(i) for i in example.input_ids.tolist()],
                    "trained_text": trained_texts([example], self.tokenizer),
                }


def preview(config: Config, *, rows: int = 3, skip: int = 0) -> Preview:
    """Read `rows` rows after the first `skip` and lead them down the road of training.

    Raises ConfigError, ModelError, and DataError for a row that training would refuse.
    """
    if not (config.data.path or config.data.sources):
        raise ConfigError("no rows to show", remedy="type: hone preview DATA.jsonl --model MODEL")
    if not config.model.name:
        raise ConfigError(
            "no model, whose tokenizer and chat template are needed",
            remedy=f"type: hone preview {config.data.path} --model FOLDER_OR_HUB_ID",
        )
    folder = find_model(config.model)
    # A file that cannot be read is told before the tokenizer, which takes most of the time, is loaded.
    max_length = config.data.max_length or _longest(folder) or NO_LIMIT
    told: list[str] = []
    (one, *others) = training_rows(config.data, lambda _, about: told.append(str(about["message"])))
    file, section = one.file, one.section
    if others:
        told.append(f"rows of the first of {len(others) + 1} sources are shown")

    reader = RowReader(file.path, name=file.name)
    source = iter(reader)
    first = next(source)
    tokenizer = load_tokenizer(config.model, folder)
    used = load_template(tokenizer, choice=section.template, variables=section.template_kwargs)
    renderer = Renderer(tokenizer, used, section.train_on, separators=section.train_separators)
    road = Road(section, renderer, max_length=max_length, file=file.name)
    every = chain([first], source)
    road.pass_over(islice(every, skip))
    found = list(road.lead(islice(every, rows)))
    if reader.had_bom:
        road.ledger.notice("byte-order-mark")
    names = {"model": "the model's own", "file": config.data.template or "a file"}
    return Preview(
        found,
        road.ledger,
        tokenizer,
        names.get(used.origin, used.origin),
        max_length,
        renderer.control.ids,
        tuple(template_notices(tokenizer, used)),
        section.too_long,
        tuple(told),
    )


def _longest(folder: Any) -> int | None:
    """The model's limit in tokens; a folder with only a tokenizer has none."""
    return longest_row(read_config(folder)) if (folder / "config.json").is_file() else None


def _left(row: RoadRow, number: int) -> Example | None:
    """What the limit left of the row's uncut Example `number`: the last stand beside each other."""
    place = number + len(row.shortened) - len(row.uncut)
    return row.shortened[place]


def _whole_characters(ids: Sequence[int], at: int, tokenizer: TextTokenizer) -> tuple[int, str]:
    """The end and text of the shortest run from `at` that decodes to whole characters, or of one token."""
    text = tokenizer.text_of(ids[at])
    if not text.endswith("�"):
        return at + 1, text
    for stop in range(at + 2, min(len(ids), at + _LONGEST_CHARACTER) + 1):
        longer = tokenizer.decode_after(ids[:at], ids[at:stop])
        if not longer.endswith("�"):
            return stop, longer
    return at + 1, text
