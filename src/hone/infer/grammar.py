"""Replies that must have a form: which tokens may come next, by a grammar. It knows no model and no request.

llguidance does the work. A grammar is text in its own notation, made here from a JSON schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import llguidance
import numpy as np
from numpy.typing import NDArray

from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError

_ANY_OBJECT: Final = {"type": "object"}


def schema_grammar(schema: Mapping[str, Any] | None) -> str:
    """A grammar of JSON texts that fit `schema`; None is any JSON object. Raises ConfigError for a schema it cannot hold."""
    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(_ANY_OBJECT if schema is None else schema)
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the schema cannot be used: {_first_line(error)}") from error
    return _checked(grammar)


def calls_grammar(opens: str, closes: str, names: Mapping[str, Any], *, argument_key: str) -> str:
    """A grammar of one tool call as JSON between two texts, for functions `names` with the schemas of their arguments."""
    choices: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, argument_key: schema or _ANY_OBJECT},
            "required": ["name", argument_key],
            "additionalProperties": False,
        }
        for name, schema in names.items()
    ]
    schema = choices[0] if len(choices) == 1 else {"anyOf": choices}
    body = f"%json {json.dumps(schema)}"
    parts = [json.dumps(opens) if opens else "", "body", json.dumps(closes) if closes else ""]
    lark = f"start: {' '.join(part for part in parts if part)}\nbody: {body}\n"
    return _checked(llguidance.LLMatcher.grammar_from_lark(lark))


def _checked(grammar: str) -> str:
    said = llguidance.LLMatcher.validate_grammar(grammar)
    if said and not said.startswith("WARNING"):
        raise ConfigError(f"the schema cannot be used: {_first_line(said)}")
    return grammar


class Grammars:
    """Makes a `Guide` for a reply of one tokenizer."""

    def __init__(self, tokenizer: TextTokenizer, *, stop_ids: Sequence[int], width: int) -> None:
        """`width` is how many logits the model gives. Raises ConfigError for a tokenizer that llguidance cannot read."""
        try:
            self._tokenizer = llguidance.LLTokenizer(
                tokenizer.backend_json,
                n_vocab=max(width, tokenizer.vocab_size),
                eos_token=[int(i) for i in stop_ids] or None,
            )
        except Exception as error:
            raise ConfigError(
                f"replies of a given form are not offered for this model's tokenizer: {_first_line(error)}"
            ) from error

    def guide(self, grammar: str) -> Guide:
        """A guide from the beginning of the grammar. Raises ConfigError where the grammar is refused."""
        return Guide(self._tokenizer, grammar)


class Guide:
    """How far a reply has come in its grammar."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, grammar: str) -> None:
        self._matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        if self._matcher.is_error():
            raise ConfigError(f"the schema cannot be used: {_first_line(self._matcher.get_error())}")

    def allowed(self, width: int) -> NDArray[np.bool_]:
        """Which of the first `width` ids may come next, the ids that end the reply among them where it may end."""
        packed = np.frombuffer(cast(bytes, self._matcher.compute_bitmask()), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[:width].astype(np.bool_)
        return np.pad(bits, (0, width - len(bits))) if len(bits) < width else bits

    def take(self, token_id: int) -> None:
        """A token was written."""
        self._matcher.consume_token(token_id)

    @property
    def is_over(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
