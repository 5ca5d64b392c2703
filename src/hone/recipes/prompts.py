"""What samples answer: token ids before training begins. It knows no model.

For a held-out row they are the very ids before its last answer, for a text what the chat template makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from hone.config.sections import Config, DataSection
from hone.data.conversation import Conversation, Message
from hone.data.formats import RowFormat
from hone.data.messages import read_messages
from hone.data.reader import Row, RowReader
from hone.data.remarks import Remarks
from hone.data.render import Renderer
from hone.data.template import TemplateError
from hone.data.tokenizer import TextTokenizer
from hone.data.tools import read_tools
from hone.errors import ConfigError, DataError
from hone.infer.text_stream import text_of
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


@dataclass(frozen=True)
class _Asked:
    name: str
    messages: list[dict[str, Any]]
    tools: tuple[Any, ...] = ()
    wanted: str | None = None


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
        asked = list(_from_file(Path(said).expanduser(), config.data))
    else:
        asked = [_text("", text) for text in said]
    if not 0 < len(asked) <= _MOST_PROMPTS:
        raise ConfigError(
            f"train.sample_prompts names {len(asked)} prompts",
            remedy=f"name 1 to {_MOST_PROMPTS}: each is answered at every sampling",
        )
    return [_rendered(one, renderer, limit) for one in asked]


def _rendered(asked: _Asked, renderer: Renderer, limit: int | None) -> Prompt:
    text = str(asked.messages[-1].get("content") or "")
    where = asked.name or text[:80]
    try:
        ids = renderer.prompt(asked.messages, asked.tools)
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


def _text(name: str, text: str) -> _Asked:
    return _Asked(name, [{"role": "user", "content": text}])


def _from_file(path: Path, section: DataSection) -> Iterator[_Asked]:
    """One prompt a line of a .txt file, or one a row; of a row's answers the last is what is wanted."""
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            what = f"train.sample_prompts cannot be read: {error}"
            raise DataError(what, where=str(path)) from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _text(f"{path.name}:{number}", line.rstrip("\r"))
        return
    rows = RowFormat("auto", section.columns, section.tags)
    for row in RowReader(path):
        name = f"{path.name}:{row.origin.line}"
        messages, tools = _messages(row, rows)
        wanted = None
        if messages and messages[-1].role == "assistant":
            wanted = messages.pop().content
        if not messages:
            raise DataError("train.sample_prompts: nothing is asked", where=str(row.origin))
        yield _Asked(name, [one.as_template() for one in messages], tools, wanted)


def _messages(row: Row, rows: RowFormat) -> tuple[list[Message], tuple[Any, ...]]:
    """A row's turns and tools. Unlike a row to train on, one of `messages` may end with a question."""
    where, value = str(row.origin), row.value
    if "messages" in value:
        remarks = Remarks()
        messages = read_messages(value["messages"], f"{where} /messages", remarks)
        return messages, tuple(read_tools(value.get("tools"), where, remarks))
    if isinstance(value.get("prompt"), str) and "completion" not in value:
        return [Message("user", cast(str, value["prompt"]))], ()
    content = rows.read(row)
    if not isinstance(content, Conversation):
        raise DataError(
            "train.sample_prompts: a row without turns asks nothing",
            where=where,
            remedy="give rows of messages, or a .txt file with a prompt on each line",
        )
    return list(content.messages), content.tools


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
