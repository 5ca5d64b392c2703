"""Chat templates written from the formats that families publish, fitted to a tokenizer. It renders nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Final

from hone.data.tokenizer import TextTokenizer

__all__ = ["NAMED", "NamedTemplate", "missing_tokens", "named_source"]

_CHATML: Final = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, slots=True)
class NamedTemplate:
    """A family's format.

    `end` ends a turn of the assistant, "" where the tokenizer's end of text does. `tokens` are the control
    tokens that its turns are made of; `begin` is the beginning of text that the family always writes, "" where
    only a tokenizer that wants one gets it.
    """

    end: str = ""
    tokens: tuple[str, ...] = ()
    begin: str = ""


NAMED: Final[dict[str, NamedTemplate]] = {
    "alpaca": NamedTemplate(),
    "chatml": NamedTemplate("<|im_end|>", _CHATML),
    "gemma": NamedTemplate("<end_of_turn>", ("<start_of_turn>", "<end_of_turn>"), "<bos>"),
    "human": NamedTemplate(),
    "llama2": NamedTemplate(begin="<s>"),
    "llama3": NamedTemplate(
        "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
    ),
    "mistral": NamedTemplate(tokens=("[INST]", "[/INST]"), begin="<s>"),
    "phi": NamedTemplate("<|end|>", ("<|user|>", "<|assistant|>", "<|end|>")),
    "plain": NamedTemplate(),
    "qwen": NamedTemplate("<|im_end|>", _CHATML),
    "qwen3": NamedTemplate("<|im_end|>", _CHATML),
    "qwen3_nothink": NamedTemplate("<|im_end|>", _CHATML),
}
"""What `data.template` may name beside a file."""


def named_source(name: str, tokenizer: TextTokenizer) -> str:
    """The Jinja source of a named template for this tokenizer: whole in itself, as it is saved with a model.

    A beginning of text is written where the family or the tokenizer wants one. Where the token that ends
    a turn is not one token here, the end of text follows it, so that generation stops.
    """
    known = NAMED[name]
    begins = tokenizer.adds_bos or (known.begin != "" and tokenizer.bos_token == known.begin)
    single = _single_tokens(tokenizer)
    ends = [f"'{known.end}'"] if known.end else []
    if known.end not in single and tokenizer.eos_token is not None:
        ends.append("eos_token")
    fitted = {"begin": "bos_token" if begins else "''", "end": " + ".join(ends) or "''"}
    if name == "mistral":
        fitted["has_system"] = str("[SYSTEM_PROMPT]" in single).lower()
        fitted["space"] = "' '" if tokenizer.prefixes_text else "''"
    head = "".join(f"{{%- set {key} = {value} -%}}\n" for key, value in fitted.items())
    return head + _body(name)


def missing_tokens(name: str, tokenizer: TextTokenizer) -> list[str]:
    """The control tokens of a named template that this tokenizer would spell in ordinary pieces."""
    single = _single_tokens(tokenizer)
    return [token for token in NAMED[name].tokens if token not in single]


def _single_tokens(tokenizer: TextTokenizer) -> set[str]:
    return {token.content for token in tokenizer.added}


@lru_cache(maxsize=len(NAMED))
def _body(name: str) -> str:
    return (files("hone.data") / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
