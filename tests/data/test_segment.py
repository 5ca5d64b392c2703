"""Prepared rows come back as they were put in, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.example import Example, Origin
from hone.data.segment import Segment, open_segment, totals
from hone.errors import DiskError

ORIGIN = Origin("rows.jsonl", 1)


def example(ids, weight):
    return Example(np.array(ids, np.int32), np.array(weight, np.float32), ORIGIN)


ROWS = [
    (4, [example([1, 2, 3], [0, 1, 0.5])]),
    (0, []),
    (7, [example([4, 5], [0, 1]), example([4, 5, 6, 7], [0, 0, 0, 1])]),
    (2, [example([9], [0]), example([9, 9], [0, 1])]),
]


def same(a, b):
    assert a.input_ids.tolist() == b.input_ids.tolist()
    assert a.weight.tolist() == b.weight.tolist()
    assert (a.input_ids.dtype, a.weight.dtype) == (np.int32, np.float32)


EXAMPLES = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=9)
    .map(lambda pairs: example([i for i, _ in pairs], [w for _, w in pairs])),
    max_size=3,
)  # fmt: skip


@given(rows=st.lists(EXAMPLES, min_size=1, max_size=6))
def test_what_is_put_in_comes_out(rows):
    segment = Segment.of(list(enumerate(rows)), {})
    for place, put in enumerate(rows):
        found = segment.examples(place, ORIGIN)
        assert len(found) == len(put)
        for a, b in zip(found, put, strict=True):
            same(a, b)
    figures = segment.figures
    for place, put in enumerate(rows):
        assert figures[:, place].tolist() == [
            len(put),
            sum(one.num_tokens for one in put),
            sum(one.num_trained_tokens for one in put),
            max((one.num_tokens for one in put), default=0),
        ]


def test_on_disk_under_the_name_of_its_content(tmp_path):
    path = Segment.of(ROWS, {"note": "é"}).save(tmp_path / "key")
    assert Segment.of(ROWS, {"note": "é"}).save(tmp_path / "key") == path
    assert [one.name for one in (tmp_path / "key").iterdir()] == [path.name]
    found = open_segment(path)
    assert found is not None
    assert found.about == {"note": "é", "totals": totals(found.figures).tolist()}
    assert found.totals.tolist() == [
        len(ROWS),
        sum(len(put) for _, put in ROWS),
        sum(one.num_tokens for _, put in ROWS for one in put),
        sum(one.num_trained_tokens for _, put in ROWS for one in put),
        max(one.num_tokens for _, put in ROWS for one in put),
    ]
    assert found.row.tolist() == [4, 0, 7, 2]
    for place, (_, put) in enumerate(ROWS):
        for a, b in zip(found.examples(place, ORIGIN), put, strict=True):
            same(a, b)


@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove", "grow", "rename"])
def test_any_harm_is_seen(tmp_path, harm):
    path = Segment.of(ROWS, {}).save(tmp_path)
    data = path.read_bytes()
    if harm == "remove":
        path.unlink()
    elif harm == "rename":
        path = path.rename(tmp_path / f"{'0' * 32}.safetensors")
    else:
        for place in range(0, len(data), 7) if harm == "flip" else [0]:
            harmed = bytearray(data)
            harmed[place] ^= 1
            path.write_bytes(
                {"flip": harmed, "truncate": data[:-1], "empty": b"", "grow": data + b" "}[harm]
            )
            assert open_segment(path) is None
    assert open_segment(path) is None


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot write prepared rows"):
        Segment.of(ROWS, {}).save(tmp_path / "file" / "key")


@given(weight=st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=12))
def test_trained_spans(weight):
    one = example([1] * len(weight), weight)
    marked = [False] * len(weight)
    for start, stop in one.trained_spans():
        assert start < stop
        for t in range(start, stop):
            marked[t] = True
    assert marked == [w > 0 for w in weight]
    assert one.num_trained_tokens == sum(marked)
    assert one.cut(3).num_tokens == min(3, len(weight))
