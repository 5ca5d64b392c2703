"""Rows on which two forms of a model are compared: the run's own where they are at hand, else texts of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hone.config.sections import Config
from hone.data.tokenizer import TextTokenizer
from hone.errors import HoneError
from hone.recipes.preview import preview

_ROWS: Final = 8
_TOKENS: Final = 256
_TEXTS: Final = (
    "The ship left the harbour at dawn, and by noon the coast was only a thin grey line behind it.",
    "def mean(values):\n    if not values:\n        raise ValueError('no values')\n    return sum(values) / len(values)\n",
    "Question: A box holds 3 red and 5 blue balls. How many balls are there?\nAnswer: 3 + 5 = 8",
    "Der Zug nach Köln fährt um 7:45 Uhr ab; die Fahrkarte kostet 12,50 €.",
    '{"name": "find_order", "arguments": {"order_id": "A-1009", "with_items": true}}',
    "El gato duerme. 猫は寝ている。 Кошка спит. القطة نائمة",
)


@dataclass(frozen=True)
class ProbeRows:
    """Token ids of each row, and where they came from in words."""

    rows: tuple[tuple[int, ...], ...]
    source: str


def probe_rows(
    config: Config | None, tokenizer: TextTokenizer, *, limit: int | None = None
) -> ProbeRows:
    """The first rows that a run trained on, as training saw them; texts of ours where they cannot be read.

    No row is longer than 256 tokens, or `limit`.
    """
    most = min(_TOKENS, limit or _TOKENS)
    if config is not None:
        rows = _own_rows(config, most)
        if rows:
            return ProbeRows(rows, f"the first {len(rows)} rows of the run's own")
    found = [tuple(tokenizer.encode(text))[:most] for text in _TEXTS]
    return ProbeRows(tuple(ids for ids in found if ids), f"{len(found)} texts that Hone brings")


def _own_rows(config: Config, most: int) -> tuple[tuple[int, ...], ...]:
    paths = [config.data.path] if config.data.path else [one.path for one in config.data.sources]
    if not all(Path(path).expanduser().exists() for path in paths[:1]):
        return ()  # of the hub, or moved: nothing is fetched for a comparison
    try:
        shown = preview(config, rows=_ROWS)
    except (HoneError, OSError):
        return ()  # moved, or out of reach: other rows serve as well
    found = [example.input_ids[:most].tolist() for row in shown.rows for example in row.examples]
    return tuple(tuple(int(i) for i in ids) for ids in found[:_ROWS] if ids)
