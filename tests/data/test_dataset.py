"""Prepared rows come back as they were put in, or not at all."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.dataset import COLUMNS, META, Dataset, DatasetWriter, open_columns
from hone.data.example import Example, Origin
from hone.errors import DiskError


def example(ids, weight, line=1):
    return Example(
        np.array(ids, np.int32), np.array(weight, np.float32), Origin("rows.jsonl", line)
    )


ROWS = [
    [example([1, 2, 3], [0, 1, 0.5])],
    [example([4, 5], [0, 1], 3), example([4, 5, 6, 7], [0, 0, 0, 1], 3)],
    [example([9], [0], 8), example([9, 9], [0, 1], 8)],
]
LINES = [1, 3, 8]


def write(folder, rows=ROWS, lines=LINES, contents=(11, 12, 13)):
    with DatasetWriter(folder) as writer:
        for row, line, content in zip(rows, lines, contents, strict=True):
            writer.add(row, line=line, content=content)
        return writer.finish({"note": "é"})


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_round_trip(tmp_path, where):
    columns = write(tmp_path / "key" if where == "disk" else None)
    data = Dataset(columns, file="rows.jsonl")
    assert (data.num_rows, data.num_examples, data.num_tokens, data.num_trained_tokens) == (
        3,
        5,
        12,
        5,
    )
    assert data.longest_example == 4
    for row, line in enumerate(LINES):
        assert data.row_name(row) == f"rows.jsonl:{line}"
        for found, put in zip(data.examples(row), ROWS[row], strict=True):
            assert found.input_ids.tolist() == put.input_ids.tolist()
            assert found.weight.tolist() == put.weight.tolist()
            assert (found.input_ids.dtype, found.weight.dtype) == (np.int32, np.float32)
            assert found.origin == Origin("rows.jsonl", line)
    assert [data.tokens(r) for r in range(3)] == [3, 6, 3]
    assert [data.trained_tokens(r) for r in range(3)] == [2, 2, 1]
    assert data.content_hashes().tolist() == [11, 12, 13]


def test_disk_and_memory_have_one_fingerprint(tmp_path):
    on_disk = Dataset(write(tmp_path / "key"), file="a")
    in_memory = Dataset(write(None), file="b")
    assert on_disk.fingerprint == in_memory.fingerprint
    changed = [[example([1, 2, 3], [0, 1, 0.25])], *ROWS[1:]]
    assert Dataset(write(None, rows=changed), file="b").fingerprint != in_memory.fingerprint
    assert (
        in_memory.view([0, 1]).fingerprint
        != in_memory.view([1, 0]).fingerprint
        != in_memory.fingerprint
    )


def test_views():
    view = Dataset(write(None), file="f").view([2, 0])
    assert (view.num_rows, view.num_examples, view.num_tokens, view.longest_example) == (2, 3, 6, 3)
    assert view.row_name(0) == "f:8"
    assert view.view([1]).row_name(0) == "f:1"
    assert view.content_hashes().tolist() == [13, 11]


def test_nothing_is_left_of_an_abandoned_writer(tmp_path):
    def abandon():
        with DatasetWriter(tmp_path / "key") as writer:
            writer.add(ROWS[0], line=1, content=1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        abandon()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    left = tmp_path / ".key.999999999.part"
    left.mkdir()
    other = tmp_path / f".key.{os.getppid()}.part"
    other.mkdir()
    write(tmp_path / "key")
    assert not left.exists()
    assert other.exists()


def test_stored_columns_come_back(tmp_path):
    write(tmp_path / "key")
    columns, about = open_columns(tmp_path / "key")
    assert about == {"note": "é"}
    assert Dataset(columns, file="f").num_tokens == 12
    assert sorted(path.name for path in (tmp_path / "key").iterdir()) == sorted([*COLUMNS, META])


@pytest.mark.parametrize("name", [*COLUMNS, META])
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove", "grow"])
def test_any_harm_is_seen(tmp_path, name, harm):
    write(tmp_path / "key")
    path = tmp_path / "key" / name
    data = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    else:
        if harm == "flip":
            data[len(data) // 2] ^= 1
        path.write_bytes(
            {"flip": data, "truncate": data[:-1], "empty": b"", "grow": data + b" "}[harm]
        )
    if name == META and harm == "grow":  # a space after the JSON changes nothing
        assert open_columns(tmp_path / "key") is not None
    else:
        assert open_columns(tmp_path / "key") is None
    write(tmp_path / "key")
    assert open_columns(tmp_path / "key") is not None


def test_another_format_is_not_read(tmp_path):
    write(tmp_path / "key")
    meta = json.loads((tmp_path / "key" / META).read_text())
    meta["format"] = 99
    (tmp_path / "key" / META).write_text(json.dumps(meta))
    assert open_columns(tmp_path / "key") is None
    assert open_columns(tmp_path / "none") is None


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot write prepared rows"):
        write(tmp_path / "file" / "key")


@settings(max_examples=50, deadline=None)
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
