"""Texts that are almost the same, found by MinHash over runs of three words. It knows texts and numbers, no rows.

Two texts count as near where about 8 in 10 of their runs are shared. A text is kept as 64 numbers of 4 bytes, and texts
that agree in one of 16 bands of 4 numbers are compared: of pairs at 0.8 that finds all but 1 in 5,000.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np

from hone.pack import Int64, UInt64

THRESHOLD: Final = 0.8
MOST_TEXTS: Final = 1_000_000
"""Texts that are looked at: 256 MB."""

_NUMBERS: Final = 64
_BANDS: Final = 16
_RUN_WORDS: Final = 3
_MOST_RUNS: Final = 4096
_WORD: Final = re.compile(r"\w+")
_DRAW: Final = np.random.default_rng(20261121)
_FACTOR: Final = _DRAW.integers(2**63, 2**64, (_NUMBERS, 1), dtype=np.uint64) | np.uint64(1)
_SHIFT: Final = _DRAW.integers(0, 2**64, (_NUMBERS, 1), dtype=np.uint64)
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)


class NearTexts:
    """Collects texts, each under a number of the caller's, and finds those that are near to an earlier one."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._labels: list[int] = []
        self.left_out = 0
        """Texts beyond the most that are looked at."""

    def add(self, label: int, text: str) -> None:
        """One more text. One of fewer than three words is compared as a whole."""
        if len(self._labels) >= MOST_TEXTS:
            self.left_out += 1
            return
        self._labels.append(label)
        self._chunks.append(_signature(text).tobytes())

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(label, label of the first text to which it is near), once for each text that has one, in order of adding."""
        if not self._labels:
            return
        signatures = np.frombuffer(b"".join(self._chunks), dtype=np.uint32)
        signatures = signatures.reshape(-1, _NUMBERS)
        first = _first_near(signatures)
        for number in np.flatnonzero(first < np.arange(len(first))).tolist():
            yield self._labels[number], self._labels[int(first[number])]


def _signature(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """The 64 numbers of a text: the least of each hash over its runs of words."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    if len(words) < _RUN_WORDS:
        runs = [" ".join(words) if words else text]
    else:
        step = max(1, len(words) // _MOST_RUNS)  # a book is sampled
        runs = [
            " ".join(words[i : i + _RUN_WORDS]) for i in range(0, len(words) - _RUN_WORDS + 1, step)
        ]
    named = {zlib.crc32(run.encode("utf-8", "surrogatepass")) for run in runs}
    found = np.fromiter(named, dtype=np.uint64, count=len(named))
    mixed = found[None, :] * _FACTOR + _SHIFT
    mixed ^= mixed >> np.uint64(31)  # a product alone keeps too much of the order of its factors
    mixed = (mixed * _MIX) >> np.uint64(32)
    return mixed.min(axis=1).astype(np.uint32)


def _first_near(signatures: np.ndarray[tuple[int, int], np.dtype[np.uint32]]) -> Int64:
    """For each text the number of the first one to which it is near, or its own."""
    count = len(signatures)
    first = np.arange(count)
    width = _NUMBERS // _BANDS
    for band in range(_BANDS):
        part = signatures[:, band * width : (band + 1) * width].astype(np.uint64)
        name: UInt64 = part[:, 0]
        for column in range(1, width):
            name = name * np.uint64(0x9E3779B97F4A7C15) + part[:, column]
        order = np.argsort(name, kind="stable")
        ordered = name[order]
        begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        # Each text of a bucket is compared with the bucket's first, which is the earliest.
        heads = order[np.repeat(begins, np.diff(np.r_[begins, count]))]
        rivals = np.flatnonzero(heads < first[order])
        texts, heads = order[rivals], heads[rivals]
        for at in range(0, len(texts), 2**16):
            some, theirs = texts[at : at + 2**16], heads[at : at + 2**16]
            share = (signatures[some] == signatures[theirs]).mean(axis=1)
            near = share >= THRESHOLD
            first[some[near]] = theirs[near]
    return first
