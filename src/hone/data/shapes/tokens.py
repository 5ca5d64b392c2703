"""Rows that are token ids already, with what of them is learned. It knows no vocabulary."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np

from hone.data.conversation import Content, TokenRow
from hone.data.shapes.given import Given
from hone.data.values import kind, refuse
from hone.pack import Float32, Int32

_CONTEXT: Final = -100
_LEARNED_BY: Final = ("labels", "weight", "loss_mask")
_OTHER_MASKS: Final = ("completion_mask", "assistant_masks", "assistant_mask")
_MOST: Final = 2**31 - 1


def tokens_row(given: Given) -> Content:
    """`input_ids`, and `labels` (-100 is context), `weight` (0 to 1) or `loss_mask` (0 or 1); else all is learned.

    `attention_mask`, if given, is 1 everywhere. The first token is never learned, since nothing stands
    before it. Raises DataError naming the first entry that cannot be meant.
    """
    ids = _ids(given, "input_ids")
    if not ids:
        refuse("the list of tokens is empty", given.at("/input_ids"))
    for key in _OTHER_MASKS:
        if given.value.get(key) is not None:
            refuse(
                f"{key!r} says what is learned under another name",
                given.at(f"/{key}"),
                f"data.columns='{{loss_mask: {key}}}' reads it",
            )
    said = [key for key in _LEARNED_BY if given.value.get(key) is not None]
    if len(said) > 1:
        refuse(
            f"both {said[0]!r} and {said[1]!r} say what is learned",
            given.at(f"/{said[1]}"),
            "keep one of them",
        )
    _check_attention(given, len(ids))
    weight = _weight(given, said[0] if said else "", ids)
    weight[0] = 0.0
    input_ids: Int32 = np.array(ids, dtype=np.int32)
    return TokenRow(input_ids, weight, given.origin, tuple(given.remarks.codes))


def _weight(given: Given, key: str, ids: list[int]) -> Float32:
    """[T] what the column `key` says; all ones where there is none."""
    if not key:
        return np.ones(len(ids), dtype=np.float32)
    if key == "labels":
        return _from_labels(given, ids)
    values = _numbers(given, key, len(ids))
    for i, value in enumerate(values):
        if key == "loss_mask" and value not in (0, 1):
            refuse(f"a mask holds 0 and 1; found {kind(value)}", given.at(f"/{key}/{i}"))
        if not 0 <= value <= 1:  # nor is it where the value is not a number
            refuse(f"a weight lies in 0 to 1; found {kind(value)}", given.at(f"/{key}/{i}"))
    return np.array(values, dtype=np.float32)


def _from_labels(given: Given, ids: list[int]) -> Float32:
    labels = _ids(given, "labels")
    _check_length(given, "labels", len(labels), len(ids))
    own, said = np.array(ids, dtype=np.int64), np.array(labels, dtype=np.int64)
    other = np.flatnonzero((said != _CONTEXT) & (said != own))
    if other.size:
        i = int(other[0])
        refuse(
            f"label {labels[i]} at place {i} is neither -100 nor the token there, which is {ids[i]}",
            given.at(f"/labels/{i}"),
            "labels stand at the place of their own token; do not shift them",
        )
    return (said != _CONTEXT).astype(np.float32)


def _check_attention(given: Given, length: int) -> None:
    if given.value.get("attention_mask") is None:
        return
    values = _numbers(given, "attention_mask", length)
    if any(value != 1 for value in values):
        i = next(i for i, value in enumerate(values) if value != 1)
        refuse(
            f"the attention mask is {values[i]} at place {i}: the row is padded",
            given.at(f"/attention_mask/{i}"),
            "remove the padding; nothing here needs it",
        )


def _ids(given: Given, key: str) -> list[int]:
    ids = _list(given, key)
    least = _CONTEXT if key == "labels" else 0
    if set(map(type, ids)) <= {int} and (not ids or (min(ids) >= least and max(ids) <= _MOST)):
        return cast("list[int]", ids)
    for i, one in enumerate(ids):
        if isinstance(one, bool) or not isinstance(one, int):
            refuse(f"a token is a whole number; found {kind(one)}", given.at(f"/{key}/{i}"))
        if not least <= one <= _MOST:
            refuse(f"a token is a number from 0 on; found {one}", given.at(f"/{key}/{i}"))
    return cast("list[int]", ids)


def _numbers(given: Given, key: str, length: int) -> list[int | float]:
    """A list of `length` numbers; truth values count as 0 and 1."""
    values = _list(given, key)
    _check_length(given, key, len(values), length)
    if not set(map(type, values)) <= {int, float, bool}:
        i = next(i for i, one in enumerate(values) if not isinstance(one, int | float))
        refuse(f"a number is wanted; found {kind(values[i])}", given.at(f"/{key}/{i}"))
    return cast("list[int | float]", values)


def _list(given: Given, key: str) -> list[Any]:
    value = given.value[key]
    if not isinstance(value, list):
        refuse(f"a list of numbers is wanted; found {kind(value)}", given.at(f"/{key}"))
    return cast("list[Any]", value)


def _check_length(given: Given, key: str, found: int, wanted: int) -> None:
    if found != wanted:
        refuse(
            f"{key} has {found} entries and input_ids {wanted}",
            given.at(f"/{key}"),
            "give one entry for each token",
        )
