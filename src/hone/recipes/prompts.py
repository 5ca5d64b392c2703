"""What samples answer: token ids before training begins. It knows no model.

For a held-out row they are the very ids before its last answer, for a text what the chat template makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hone.config.sections import Config
from hone.data.render import Renderer
from hone.data.template import TemplateError
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError
from hone.infer.text_stream import text_of
from hone.recipes.asked import Asked, AskedFile, asked_text
from hone.recipes.source import Source

HELD_OUT: Final = "held-out"
_HELD_OUT_ROWS: Final = 3
_MOST_PROMPTS: Final = 64
_LEAST_PROMPT: Final = (
    2  # tokens; a row that is trained from its beginning is continued from further on
)
_CONTINUED_TOKENS: Final = 32
_ROLES: Final = ("system", "user", "assistant", "model", "tool")  # as templates write them


@dataclass(frozen=True)
class Prompt:
    """`ids` are what the model continues; `wanted` is what the row says there."""

    name: str
    text: str
    ids: tuple[int, ...]
    wanted: str | None


def read_prompts(
    config: Config, source: Source, renderer: Renderer, *, limit: int | None
) -> list[Prompt]:
    """The prompts that `train.sample_prompts` means; `limit` is the most tokens that the model takes, reply included.

    Raises ConfigError and DataError for what cannot be asked.
    """
    said = config.train.sample_prompts
    if said == HELD_OUT:
        return list(_held_out(source))
    if isinstance(said, str):
        path, data = Path(said).expanduser(), config.data
        asked = list(AskedFile(path, "train.sample_prompts", data.columns, data.tags))
    else:
        asked = [asked_text("", text) for text in said]
    if not 0 < len(asked) <= _MOST_PROMPTS:
        raise ConfigError(
            f"train.sample_prompts names {len(asked)} prompts",
            remedy=f"name 1 to {_MOST_PROMPTS}: each is answered at every sampling",
        )
    return [_rendered(one, renderer, limit) for one in asked]


def _rendered(asked: Asked, renderer: Renderer, limit: int | None) -> Prompt:
    text = asked.messages[-1].content
    where = asked.name or text[:80]
    try:
        ids = renderer.prompt([one.as_template() for one in asked.messages], asked.tools)
    except TemplateError as error:
        what = f"train.sample_prompts: the chat template refuses a prompt: {error.what}"
        raise ConfigError(what, where=where) from error
    if limit is not None and len(ids) >= limit:
        raise ConfigError(
            f"train.sample_prompts: a prompt has {len(ids):,} tokens, and the model takes {limit:,} "
            "with its reply",
            where=where,
            remedy="leave it out, or say it in fewer words",
        )
    return Prompt(asked.name, text, tuple(ids), asked.wanted)


def _held_out(source: Source) -> Iterator[Prompt]:
    """The first held-out rows that are trained on, up to their last answer."""
    rows = source.prepared.validation
    assert rows is not None, "the configuration asks for held-out rows"
    added = {token.id for token in source.tokenizer.added}
    found = 0
    for row in _turn_about(rows.row_counts):
        examples = rows.examples(row)
        if not examples:
            continue
        ids = [int(i) for i in examples[-1].input_ids]
        start, stop = examples[-1].trained_spans()[-1]
        if start < _LEAST_PROMPT:
            start = min(_CONTINUED_TOKENS, max(1, len(ids) // 2))
        wanted = ids[start:stop]
        while (
            wanted and wanted[-1] in added
        ):  # the end of the turn, which a reply does not show either
            wanted.pop()
        yield Prompt(
            name=rows.row_name(row),
            text=_asked_last(source.tokenizer, ids[:start], added),
            ids=tuple(ids[:start]),
            wanted=text_of(source.tokenizer, ids[:start], wanted),
        )
        found += 1
        if found == _HELD_OUT_ROWS:
            return


def _turn_about(counts: Sequence[int]) -> Iterator[int]:
    """The first row of each source, then the second of each, and so on; rows are numbered through all of them."""
    first = [sum(counts[:i]) for i in range(len(counts))]
    for place in range(max(counts)):
        yield from (
            begin + place for begin, count in zip(first, counts, strict=True) if place < count
        )


def _asked_last(tokenizer: TextTokenizer, ids: Sequence[int], added: AbstractSet[int]) -> str:
    """What stands last between control tokens, without the names of roles: for a reader only."""
    pieces: list[list[int]] = [[]]
    for i in ids:
        if i in added:
            pieces.append([])
        else:
            pieces[-1].append(i)
    for piece in reversed(pieces):
        lines = text_of(tokenizer, (), piece).strip().split("\n")
        if lines[0].strip().lower() in _ROLES:
            del lines[0]
        if text := "\n".join(lines).strip():
            return text
    return text_of(tokenizer, (), ids)
