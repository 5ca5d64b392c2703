"""Rows to measure with: made-up chat rows of GSM8K's lengths, and real conversations. It knows no tokens.

The made-up rows are the same on every machine: words of a made-up language, drawn by rank as in real text.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from bisect import bisect
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_ONSETS = (*"bdfghklmnprstvwyz", "ch", "st", "tr")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ou")
_CODAS = ("", "", "n", "l", "r", "s", "nd", "sk")
_WORDS = 3200
_RANK_OFFSET = (
    2.7  # Mandelbrot's offset: the most frequent words are not as frequent as 1 / rank says
)
_SHORTEST, _LONGEST = 29, 616  # words and template tokens of one row
_TEMPLATE_TOKENS = 5  # of one turn
_TOKENS_PER_WORD = 1.14  # a word, a capital or a mark in between


def made_up(count: int, *, seed: int = 0) -> list[Row]:
    """`count` chat rows, about 223 tokens each (28 to 625) with a tokenizer of 8,192 trained on them."""
    language = _Language(random.Random(seed))
    return [language.row() for _ in range(count)]


class _Language:
    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        fixed = random.Random(97)  # the words are the same whatever the seed of the rows
        words: dict[str, None] = {}
        while len(words) < _WORDS:
            syllables = fixed.choices((1, 2, 3), weights=(3, 5, 2))[0]
            words["".join(self._syllable(fixed) for _ in range(syllables))] = None
        self._words = list(words)
        shares = (1.0 / (rank + _RANK_OFFSET) for rank in range(1, _WORDS + 1))
        self._cumulated = list(itertools.accumulate(shares))

    @staticmethod
    def _syllable(draw: random.Random) -> str:
        return draw.choice(_ONSETS) + draw.choice(_VOWELS) + draw.choice(_CODAS)

    def text(self, tokens: float) -> str:
        """About so many tokens of sentences."""
        out: list[str] = []
        starts = True
        for _ in range(max(2, round(tokens / _TOKENS_PER_WORD))):
            word = self._words[bisect(self._cumulated, self._draw.random() * self._cumulated[-1])]
            word = word.capitalize() if starts else word
            starts = self._draw.random() < 0.09
            mark = "." if starts else "," if self._draw.random() < 0.04 else ""
            out.append(word + mark)
        return " ".join(out)

    def row(self) -> Row:
        """One conversation: some with a system message, most with one turn, the longer half of it the reply."""
        draw = self._draw
        # A beta distribution with many short rows and a long tail.
        total = _SHORTEST + (_LONGEST - _SHORTEST) * draw.betavariate(0.62, 1.28)
        messages: list[dict[str, str]] = []
        if total > 60 and draw.random() < 0.4:
            share = min(14.0, total / 5)
            messages.append({"role": "system", "content": self.text(share)})
            total -= share + _TEMPLATE_TOKENS
        turns = draw.choices((1, 2, 3), weights=(6, 2, 1))[0] if total > 80 else 1
        for _ in range(turns):
            words = max(6.0, total / turns - 2 * _TEMPLATE_TOKENS)
            question = words * draw.uniform(0.2, 0.55)
            messages.append({"role": "user", "content": self.text(question)})
            messages.append({"role": "assistant", "content": self.text(words - question)})
        return {"messages": messages}


def shared_folder() -> Path | None:
    """`HONE_SHARED`, or `shared` beside the repository; None where there is none."""
    said = os.environ.get("HONE_SHARED")
    folder = Path(said) if said else Path(__file__).resolve().parents[2] / "shared"
    return folder if folder.is_dir() else None


def read_rows(path: Path) -> list[Row]:
    """Every line of a JSONL file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write_rows(path: Path, rows: list[Row]) -> None:
    """One JSON object a line."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def texts(rows: list[Row]) -> list[str]:
    """What a tokenizer is trained on: contents, calls and tools."""
    found: list[str] = []
    for row in rows:
        found += [json.dumps(tool) for tool in row.get("tools") or ()]
        for message in row["messages"]:
            found.append(message.get("content") or "")
            found += [json.dumps(call["function"]) for call in message.get("tool_calls") or ()]
    return found
