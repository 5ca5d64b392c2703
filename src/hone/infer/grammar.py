"""Replies that must fit a JSON schema: which tokens may come next. It knows no model and no request.

llguidance does the work.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError, EnvironmentFault

ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}
# Free space between parts would let a model that is unsure write line breaks without end.
_COMPACT: Final[Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def call_schema(functions: Mapping[str, Mapping[str, Any]], argument_key: str) -> dict[str, Any]:
    """The schema of a call of one of `functions`, which are the schemas of their arguments by name."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, argument_key: schema or ANY_OBJECT},
            "required": ["name", argument_key],
            "additionalProperties": False,
        }
        for name, schema in functions.items()
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def check_schema(schema: Mapping[str, Any]) -> str:
    """The grammar of `schema`. Raises ConfigError for a schema that cannot be held."""
    llguidance = _library()
    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(schema), overrides=_COMPACT
        )
        said = llguidance.LLMatcher.validate_grammar(grammar)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"the schema cannot be used: {_first_line(error)}") from error
    if said and not said.startswith("WARNING"):
        raise ConfigError(f"the schema cannot be used: {_first_line(said)}")
    return grammar


class Grammars:
    """Makes a `Guide` for a reply in one tokenizer's tokens."""

    def __init__(self, tokenizer: TextTokenizer, *, stop_ids: Sequence[int], width: int) -> None:
        """`width` is how many logits the model gives. Raises ConfigError for a tokenizer that cannot be read."""
        llguidance = _library()
        try:
            self._tokenizer = llguidance.LLTokenizer(
                tokenizer.backend_json,
                n_vocab=max(width, tokenizer.vocab_size),
                eos_token=[int(i) for i in stop_ids] or None,
            )
        except Exception as error:
            raise ConfigError(
                f"replies of a given form are not offered for this tokenizer: {_first_line(error)}"
            ) from error

    def guide(self, schema: Mapping[str, Any]) -> Guide:
        """A guide for one reply. Raises ConfigError where the schema is refused."""
        return Guide(self._tokenizer, check_schema(schema))


class Guide:
    """How far a reply has come in its grammar."""

    def __init__(self, tokenizer: Any, grammar: str) -> None:
        """`tokenizer` is llguidance's own."""
        self._matcher = _library().LLMatcher(tokenizer, grammar, log_level=0)
        if self._matcher.is_error():
            raise ConfigError(
                f"the schema cannot be used: {_first_line(self._matcher.get_error())}"
            )

    def allowed(self, width: int) -> NDArray[np.bool_]:
        """Which of the first `width` ids may come next, the ids that end the reply among them where it may end."""
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")[:width].astype(np.bool_)
        return np.pad(bits, (0, width - len(bits))) if len(bits) < width else bits

    def take(self, token_id: int) -> None:
        """A token was written."""
        self._matcher.consume_token(token_id)

    @property
    def is_over(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())


def _library() -> Any:
    """llguidance, which only replies of a given form need. Raises EnvironmentFault where it is not installed."""
    try:
        return importlib.import_module("llguidance")
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            "replies of a given form need the package llguidance, which is not installed",
            remedy="pip install 'hone[service]'",
        ) from error


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
