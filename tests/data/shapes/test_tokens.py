"""Rows of token ids: what is learned of them, and every entry that cannot be meant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.conversation import TokenRow
from hone.data.formats import RowFormat
from tests.data.rows import read, refusal

IDS = [5, 6, 7, 8]


def weight(**columns: object) -> list[float]:
    return read({"input_ids": IDS, **columns}).weight.tolist()


def test_what_is_learned():
    form = RowFormat()
    found = read({"input_ids": IDS, "labels": [-100, -100, 7, 8]}, form)
    assert form.shape == "tokens"
    assert isinstance(found, TokenRow)
    assert (found.input_ids.dtype, found.weight.dtype) == (np.int32, np.float32)
    assert found.input_ids.tolist() == IDS
    assert found.weight.tolist() == [0, 0, 1, 1]
    assert weight() == weight(attention_mask=[1, 1, 1, 1]) == [0, 1, 1, 1]
    assert weight(labels=IDS) == [0, 1, 1, 1]
    assert weight(weight=[1, 0, 0.5, 1.0]) == [0, 0, 0.5, 1]
    assert weight(loss_mask=[0, 1, False, True]) == [0, 1, 0, 1]
    assert weight(labels=None, weight=None) == [0, 1, 1, 1]


@given(pairs=st.lists(st.tuples(st.integers(0, 2**31 - 1), st.booleans()), min_size=1, max_size=20))
def test_labels_learn_what_is_not_context(pairs):
    ids = [token for token, _ in pairs]
    labels = [token if is_learned else -100 for token, is_learned in pairs]
    found = read({"input_ids": ids, "labels": labels})
    assert found.input_ids.tolist() == ids
    assert found.weight.tolist() == [0.0, *[float(is_learned) for _, is_learned in pairs[1:]]]


@pytest.mark.parametrize(
    ("columns", "pointer", "words"),
    [
        ({"input_ids": []}, "/input_ids", "empty"),
        ({"input_ids": "5 6"}, "/input_ids", "the text"),
        ({"input_ids": [5, "6"]}, "/input_ids/1", "the text '6'"),
        ({"input_ids": [5, True]}, "/input_ids/1", "true"),
        ({"input_ids": [5, 6.0]}, "/input_ids/1", "6.0"),
        ({"input_ids": [5, -1]}, "/input_ids/1", "found -1"),
        ({"input_ids": [5, 2**31]}, "/input_ids/1", str(2**31)),
        ({"labels": [-100, 7, 8, 8]}, "/labels/1", "label 7 at place 1"),
        ({"labels": [5, 6, -1, 8]}, "/labels/2", "label -1 at place 2"),
        ({"labels": [5, 6, -101, 8]}, "/labels/2", "-101"),
        ({"labels": [5, 6, 7]}, "/labels", "3 entries and input_ids 4"),
        ({"weight": [1, 1, 1]}, "/weight", "3 entries"),
        ({"weight": [1, 1, 1, 1.5]}, "/weight/3", "1.5"),
        ({"weight": [1, 1, 1, None]}, "/weight/3", "null"),
        ({"loss_mask": [1, 1, 1, 0.5]}, "/loss_mask/3", "0.5"),
        ({"loss_mask": "all"}, "/loss_mask", "a list of numbers"),
        ({"attention_mask": [1, 1, 1, 0]}, "/attention_mask/3", "padded"),
        ({"labels": IDS, "weight": [1] * 4}, "/weight", "both"),
        ({"completion_mask": [1] * 4}, "/completion_mask", "under another name"),
    ],
)
def test_refused(columns, pointer, words):
    error = refusal({"input_ids": IDS, **columns}, pointer)
    assert words in error.what


def test_the_remedy_for_a_mask_of_another_name():
    row = {"input_ids": IDS, "assistant_masks": [0, 0, 1, 1]}
    assert "data.columns='{loss_mask: assistant_masks}'" in refusal(row, "/assistant_masks").remedy
    assert read(row, columns={"loss_mask": "assistant_masks"}).weight.tolist() == [0, 0, 1, 1]


def test_hashes():
    one = read({"input_ids": IDS, "labels": IDS}).content_hash()
    assert one == read({"input_ids": IDS}, line=7).content_hash()
    assert one != read({"input_ids": IDS, "weight": [1, 1, 1, 0.5]}).content_hash()
    assert one != read({"input_ids": [5, 6, 7, 9]}).content_hash()
