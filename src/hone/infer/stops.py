"""Where a reply ends: the token that ended trained turns, and those the model's own files name. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from hone.config.model_json import read_model_json
from hone.data.conversation import Conversation, Message
from hone.data.example import Origin
from hone.data.render import Renderer
from hone.data.template import TemplateError
from hone.data.tokenizer import TextTokenizer
from hone.errors import ModelError


def stop_ids(renderer: Renderer, folder: Path) -> tuple[int, ...]:
    """Ids at which a reply stops, ascending.

    The end of turn is read off a rendered conversation, so it is the very token that training trains; the
    tokenizer's end of text and what `folder` (the base model's) names as ends are added.
    """
    return tuple(sorted({*_end_of_turn(renderer), *named_stop_ids(renderer.tokenizer, folder)}))


def named_stop_ids(tokenizer: TextTokenizer, folder: Path) -> frozenset[int]:
    """Ids at which the model's own files let a reply stop: its end of text, and what `folder` names."""
    found = set[int]() if tokenizer.eos_id is None else {tokenizer.eos_id}
    for name in ("generation_config.json", "config.json"):
        found.update(_named_ends(folder / name))
    return frozenset(found)


def _end_of_turn(renderer: Renderer) -> list[int]:
    conversation = Conversation(
        (Message("user", "?"), Message("assistant", "!")), Origin("stops", 1)
    )
    try:
        examples = renderer.render(conversation)
    except TemplateError:
        return []  # a template of its own kind; the files name the ends
    added = {token.id for token in renderer.tokenizer.added}
    last = [int(e.input_ids[e.weight.nonzero()[0][-1]]) for e in examples if e.weight.any()]
    return [i for i in last if i in added]


def _named_ends(path: Path) -> list[int]:
    if not path.is_file():
        return []
    try:
        ends: Any = read_model_json(path).get("eos_token_id")
    except ModelError:
        return []  # the loader of weights says what is wrong with the file
    listed = cast("list[Any]", ends) if isinstance(ends, list) else [ends]
    return [i for i in listed if isinstance(i, int)]
