"""Which part (train, val, test) each row goes to, by what it says. It knows hashes and shares, no rows and no files."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Final

from hone.data.example import Origin
from hone.data.formats import RowFormat
from hone.data.reader import Row
from hone.data.strict import JsonObject
from hone.errors import ConfigError, DataError

PARTS: Final = ("train", "val", "test")
_WHOLE: Final = 2**64


@dataclass(frozen=True, slots=True)
class RowKey:
    """What decides a row's part: a hash of what it says, and of the group that it belongs to, if any."""

    content: bytes
    group: bytes | None = None


@dataclass(frozen=True)
class Assignment:
    """The part of each row, in order, and how many rows were moved so that no part is empty."""

    parts: list[str]
    moved: int


def row_key(row: JsonObject, group: object = None) -> RowKey:
    """The key of a row. Rows that say the same conversation share it, whatever else stands beside it.

    A row of no shape that is known is taken as the JSON value that it is, whatever the order of its keys.
    """
    # By this row alone: what a file's first row settles would make the key depend on the others.
    form = _messages() if "messages" in row else RowFormat()
    try:
        key = said_key(form.read(Row(row, Origin("", 0))).content_hash())
    except DataError:
        key = RowKey(_digest(row))
    return key if group is None else RowKey(key.content, _digest(group))


def said_key(content_hash: int) -> RowKey:
    """The key of a row whose conversation has this content hash."""
    return RowKey(_digest(content_hash))


@cache
def _messages() -> RowFormat:
    return RowFormat("messages")


def read_shares(text: str) -> dict[str, float]:
    """Shares by part from text such as `0.9/0.05/0.05` (train, val, test) or `0.9/0.1`. Raises ConfigError."""
    words = text.split("/")
    if len(words) > len(PARTS):
        raise ConfigError(
            f"{text!r} names {len(words)} parts; there are {', '.join(PARTS)}",
            remedy="write TRAIN/VAL/TEST, e.g. 0.9/0.05/0.05",
        )
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ConfigError(
            f"{text!r} is no ratio", remedy="write TRAIN/VAL/TEST, e.g. 0.9/0.05/0.05"
        ) from None
    return check_shares(dict(zip(PARTS, numbers, strict=False)))


def check_shares(shares: Mapping[str, float]) -> dict[str, float]:
    """The shares above 0, if they are from 0 to 1 and sum to 1. Raises ConfigError."""
    total = sum(shares.values())
    if not all(0 <= share <= 1 for share in shares.values()) or not abs(total - 1) < 1e-6:
        told = ", ".join(f"{part} {share:g}" for part, share in shares.items())
        raise ConfigError(
            f"the shares are from 0 to 1 and sum to 1; found {told}, together {total:g}",
            remedy="e.g. --ratio 0.9/0.05/0.05",
        )
    return {part: share for part, share in shares.items() if share > 0}


def assign(rows: Sequence[RowKey], shares: Mapping[str, float], *, seed: int) -> Assignment:
    """Lay each row into a part by its hash, read as a number from 0 to 1.

    So a row's part depends on nothing but what it says (or its group) and the seed: rows that are added,
    removed or reordered do not move others. Equal rows, and rows of one group, stay together; where groups
    share a row, they are one. No part is left empty: what lies nearest to its border moves there, all of its
    rows together. Raises DataError where there are fewer distinct rows or groups than parts.
    """
    names = list(shares)
    bounds = [int(share * _WHOLE) for share in accumulate(shares.values())]
    bounds[-1] = _WHOLE
    unit_of = _units(rows)
    place = [_place(seed, unit) for unit in unit_of]
    places = sorted(set(place))
    if len(places) < len(names):
        noun = "groups" if any(row.group is not None for row in rows) else "rows"
        raise DataError(
            f"{len(places)} distinct {noun} cannot fill {len(names)} parts",
            remedy="add rows, or ask for fewer parts, e.g. --ratio 0.9/0.1",
        )
    part_of = {one: bisect_right(bounds, one) for one in places}
    moved = _fill(part_of, bounds)
    return Assignment(
        [names[part_of[one]] for one in place], sum(1 for one in place if one in moved)
    )


def _fill(part_of: dict[int, int], bounds: Sequence[int]) -> set[int]:
    """Give each empty part the place nearest to it, out of a part that has another; return what moved."""
    counts = [0] * len(bounds)
    for part in part_of.values():
        counts[part] += 1
    moved: set[int] = set()
    for empty, count in enumerate(counts):
        if count:
            continue
        low, high = (bounds[empty - 1] if empty else 0), bounds[empty]
        near = min(
            (one for one, part in part_of.items() if counts[part] > 1),
            key=lambda one: (max(low - one, one - high), one),
        )
        counts[part_of[near]] -= 1
        counts[empty] += 1
        part_of[near] = empty
        moved.add(near)
    return moved


def _units(rows: Sequence[RowKey]) -> list[bytes]:
    """What moves as one: a row's content, or its group together with every group that shares a row with it."""
    if all(row.group is None for row in rows):
        return [row.content for row in rows]
    root: dict[bytes, bytes] = {}

    def find(one: bytes) -> bytes:
        while (up := root.setdefault(one, one)) != one:
            root[one] = root[up]
            one = up
        return one

    first: dict[bytes, bytes] = {}
    for row in rows:
        own = b"group " + row.group if row.group is not None else b"row " + row.content
        one, other = find(own), find(first.setdefault(row.content, own))
        root[max(one, other)] = min(one, other)  # the smallest name stands for all
    return [find(first[row.content]) for row in rows]


def _place(seed: int, unit: bytes) -> int:
    """Where a unit lies, from 0 to 2**64."""
    return int.from_bytes(hashlib.sha256(f"{seed} ".encode() + unit).digest()[:8], "big")


def _digest(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
