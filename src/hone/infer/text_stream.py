"""Tokens to text as they come, in whole characters. It knows no model."""

from __future__ import annotations

from collections.abc import Sequence

from hone.data.tokenizer import TextTokenizer

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 8  # tokens: more than the bytes of any one character


class TextStream:
    """Text of tokens that are told one by one after a prompt.

    A character may take several tokens; its text comes with the last of them. The pieces joined are the text
    of all tokens decoded at once.
    """

    def __init__(self, tokenizer: TextTokenizer, before: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._before = [int(i) for i in before[-1:]]
        self._waiting: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that is whole now; empty while a character is not."""
        self._waiting.append(int(token_id))
        text = self._text()
        if text.endswith(_BROKEN) and len(self._waiting) < _LONGEST_CHARACTER:
            return ""
        self._settle()
        return text

    def end(self) -> str:
        """What was waiting for more and gets none."""
        text = self._text() if self._waiting else ""
        self._settle()
        return text

    def _text(self) -> str:
        return self._tokenizer.decode_after(self._before, self._waiting)

    def _settle(self) -> None:
        self._before = self._waiting[-1:] or self._before
        self._waiting = []


def text_of(tokenizer: TextTokenizer, before: Sequence[int], token_ids: Sequence[int]) -> str:
    """The text that the tokens add after a prompt."""
    stream = TextStream(tokenizer, before)
    return "".join(stream.push(i) for i in token_ids) + stream.end()
