"""Rendered text to token ids, piece by piece between added tokens, each distinct piece once. It knows no turns."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hone.data.control import ControlTokens
from hone.data.encoder import FastEncoder
from hone.data.tokenizer import TextTokenizer
from hone.data.trie import trie_pattern
from hone.pack import Int32

# Unicode White_Space: what an added token with lstrip or rstrip swallows.
SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_CACHE_CHARACTERS: Final = 32 * 2**20
_ENTRY_CHARACTERS: Final = 128  # what an entry costs beside its text, in characters


@dataclass(frozen=True, slots=True)
class Cut:
    """An added token found in text: [start, stop) with the space it swallows, `end` where its own letters end."""

    start: int
    stop: int
    end: int
    id: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Text between two cuts, [start, stop). `continues`: no space may be put before it."""

    start: int
    stop: int
    text: str
    continues: bool


Part = Cut | Piece


class Pieces:
    """Splits text at added tokens as the tokenizer would, and encodes what lies between.

    Added tokens are what a tokenizer splits off first, so the pieces are independent of each other:
    a piece that many rows share (a policy, tool schemas) is encoded once.
    """

    def __init__(
        self, tokenizer: TextTokenizer, control: ControlTokens, encoder: FastEncoder | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._control = control
        tokens = [token for token in tokenizer.added if not token.single_word and token.content]
        self._tokens = {token.content: token for token in tokens}
        self._pattern = trie_pattern(self._tokens)
        # A token that counts only as a single word stays in its piece, where the tokenizer finds it.
        alone = {token.id for token in tokenizer.added if token.single_word}
        # What letters outside the vocabulary become is no forgery, though it may be flagged special.
        self._forbidden = control.ids - tokenizer.unknown_ids
        self._never_in_pieces = self._forbidden - alone
        self._cache: dict[tuple[str, bool, bool], Int32] = {}
        self._cached_characters = 0

    def split(self, text: str, *, after: bool = False) -> list[Part]:
        """Cuts and pieces of `text`, in order. `after`: other text stands before it, with no token between."""
        parts: list[Part] = []
        at = 0
        for found in self._pattern.finditer(text):
            token = self._tokens[found[0]]
            start, end = found.span()
            if start < at:  # swallowed by the token before
                continue
            stop = end
            while token.lstrip and start > at and text[start - 1] in SPACE:
                start -= 1
            while token.rstrip and stop < len(text) and text[stop] in SPACE:
                stop += 1
            if at < start:
                parts.append(self._piece(text, at, start, after=after))
            parts.append(Cut(start, stop, end, token.id))
            at = stop
        if at < len(text):
            parts.append(self._piece(text, at, len(text), after=after))
        return parts

    def fetch(self, pieces: Iterable[tuple[str, bool, str]]) -> None:
        """Encode those (text, continues, mark) that have not been encoded yet, all at once."""
        wanted: dict[tuple[bool, bool], dict[str, None]] = {}
        for text, continues, mark in pieces:
            bare, continues, is_guarded = key = _key(text, continues, mark)
            if key not in self._cache:
                wanted.setdefault((continues, is_guarded), {})[bare] = None
        for (continues, is_guarded), texts in wanted.items():
            if self._encoder is not None and not is_guarded:
                texts = self._encode_fast(self._encoder, texts, continues=continues)
            found = self._tokenizer.encode_many(list(texts), continues=continues, plain=is_guarded)
            for bare, ids in zip(texts, found, strict=True):
                forbidden = self._forbidden if is_guarded else self._never_in_pieces
                if not forbidden.isdisjoint(ids):
                    ids = self._spelled(bare, continues=continues)
                self._keep((bare, continues, is_guarded), np.array(ids, dtype=np.int32))

    def _encode_fast(
        self, encoder: FastEncoder, texts: dict[str, None], *, continues: bool
    ) -> dict[str, None]:
        """Encode those that the fast encoder can be trusted with; the others are returned."""
        left: dict[str, None] = {}
        for text in texts:
            ids = encoder.encode(text)
            if ids is None:
                left[text] = None
            else:
                self._keep((text, continues, False), ids)
        return left

    def ids(self, text: str, *, continues: bool, mark: str) -> Int32:
        """[T] ids of one piece of text."""
        key = _key(text, continues, mark)
        found = self._cache.get(key)
        if found is None:
            self.fetch([(text, continues, mark)])
            found = self._cache[key]
        return found

    def every(self, pieces: Sequence[tuple[str, bool, str]]) -> list[Int32]:
        """Ids of each (text, continues, mark); those that were not fetched are encoded one by one."""
        return [self.ids(text, continues=goes_on, mark=mark) for text, goes_on, mark in pieces]

    def plain(self, texts: Iterable[tuple[str, bool]]) -> list[Int32]:
        """Ids of each (text, continues), no one of which needs a mark."""
        found: list[Int32] = []
        for text, continues in texts:
            key = (text, continues, False)
            ids = self._cache.get(key)
            if ids is None and self._encoder is not None:
                ids = self._encoder.encode(text)
                if ids is not None:
                    self._keep(key, ids)
            found.append(self.ids(text, continues=continues, mark="") if ids is None else ids)
        return found

    @property
    def encodes_one_by_one(self) -> bool:
        """Whether nothing is won by encoding many pieces at once."""
        return self._encoder is not None

    def ids_of(self, parts: Iterable[Part], mark: str) -> list[Int32]:
        """Ids of each part."""
        return [
            np.array([part.id], dtype=np.int32)
            if isinstance(part, Cut)
            else self.ids(part.text, continues=part.continues, mark=mark)
            for part in parts
        ]

    def control_spans(self, text: str) -> list[tuple[int, int]]:
        """Where the letters of control tokens lie in a text that the template wrote."""
        cuts = [part for part in self.split(text) if isinstance(part, Cut)]
        return [
            (cut.end - len(text[cut.start : cut.end].lstrip()), cut.end)
            for cut in cuts
            if cut.id in self._control.ids
        ]

    def equal_the_whole(self, text: str) -> bool:
        """Whether encoding `text` piece by piece gives what encoding it at once does."""
        found = [int(i) for ids in self.ids_of(self.split(text), "") for i in ids]
        return found == self._tokenizer.encode(text)

    def _piece(self, text: str, start: int, stop: int, *, after: bool) -> Piece:
        at_beginning = start == 0
        continues = after if at_beginning else not self._tokenizer.prefixes_every_piece
        return Piece(start, stop, text[start:stop], continues)

    def _spelled(self, text: str, *, continues: bool) -> list[int]:
        """Ids of text in which control tokens must not be recognised, though the tokenizer does."""
        ids: list[int] = []
        for part in _halves(text, self._control):
            found = self._tokenizer.encode_many([part], continues=continues, plain=True)[0]
            if not self._forbidden.isdisjoint(found):
                found = [
                    i
                    for letter in part
                    for i in self._tokenizer.encode_many([letter], continues=True, plain=True)[0]
                    if i not in self._forbidden
                ]
            ids += found
            continues = True
        return ids

    def _keep(self, key: tuple[str, bool, bool], ids: Int32) -> None:
        size = len(key[0]) + _ENTRY_CHARACTERS
        if self._cached_characters + size > _CACHE_CHARACTERS:
            self._cache.clear()
            self._cached_characters = 0
        ids.setflags(write=False)
        self._cache[key] = ids
        self._cached_characters += size


def _key(text: str, continues: bool, mark: str) -> tuple[str, bool, bool]:
    if mark:
        # A template that writes a text as JSON in ASCII, or as Python would, writes the mark's escape.
        bare = text.replace(mark, "").replace(ascii(mark)[1:-1], "")
        if bare != text:
            return bare, continues, True
    return text, continues, False


def _halves(text: str, control: ControlTokens) -> list[str]:
    """`text` cut after the first letter of every control token in it."""
    places: set[int] = set()
    for token in control.strings:
        at = text.find(token)
        while at >= 0:
            places.add(at + 1)
            at = text.find(token, at + 1)
    edges = [0, *sorted(places), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges) if a < b]
