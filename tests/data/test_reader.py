"""Bytes to rows: what is read exactly, and what is refused with its place."""

from __future__ import annotations

import gzip
import json
import os
import socket
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.example import Origin
from hone.data.reader import RowReader
from hone.data.strict import MAX_DEPTH, parse_object
from hone.errors import DataError


def rows(tmp_path, data: bytes, name: str = "rows.jsonl"):
    path = tmp_path / name
    path.write_bytes(data)
    return [(row.value, row.origin.line) for row in RowReader(path)]


def refusal(tmp_path, data: bytes, name: str = "rows.jsonl") -> DataError:
    with pytest.raises(DataError) as caught:
        rows(tmp_path, data, name)
    assert caught.value.remedy
    return caught.value


def test_lines(tmp_path):
    assert rows(tmp_path, b'{"a":1}\n\n{"a":2}\r\n  \t\n{"a":3}') == [
        ({"a": 1}, 1),
        ({"a": 2}, 3),
        ({"a": 3}, 5),
    ]


def test_what_else_was_seen(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\n\n\n')
    source = RowReader(path)
    assert [row.value for row in source] == [{"a": 1}]
    assert (source.blank_lines, source.had_bom) == (2, True)
    import hashlib

    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_only_lf_ends_a_line(tmp_path):
    text = "a\u2028b\u2029c\x85d\x7f"
    data = json.dumps({"t": text}, ensure_ascii=False).encode()
    assert rows(tmp_path, data + b"\n" + data) == [({"t": text}, 1), ({"t": text}, 2)]


@pytest.mark.parametrize(
    "text",
    ["2024-01-01", "001", "true", "1e5", "null", "NaN", "a\x00b", " x ", "\u00e9", "e\u0301"],
)
def test_text_stays_as_it_is_written(tmp_path, text):
    assert rows(tmp_path, json.dumps({"t": text}).encode()) == [({"t": text}, 1)]


def test_numbers_stay_exact(tmp_path):
    assert rows(
        tmp_path,
        b'{"a": 1000000000000000000000000000001, "b": 9007199254740993, "c": 1.5, "d": -18446744073709551617}',
    ) == [({"a": 10**30 + 1, "b": 9007199254740993, "c": 1.5, "d": -(2**64) - 1}, 1)]


BAD = {
    "NaN": (b'{"a": NaN}', "NaN"),
    "Infinity": (b'{"a": -Infinity}', "Infinity"),
    "cut off": (b'{"a": {"b": 1', "cut off"),
    "cut off in text": (b'{"a": "bc', "cut off"),
    "trailing comma": (b'{"a": 1,}', "column"),
    "duplicate": (b'{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
    "duplicate inside": (b'{"x": [{"k": "a:b", "k": 1}]}', "'k' stands twice"),
    "duplicate after a backslash": (b'{"a\\\\": 1, "b": 2, "b": 3}', "'b' stands twice"),
    "duplicate in disguise": (b'{"a": 1, "\\u0061": 2}', "'a' stands twice"),
    "not UTF-8": (b'{"a": "x\xffy"}', "byte 8 of the row (0xff) is not UTF-8"),
    "overlong": (b'{"a": "\xc0\xaf"}', "not UTF-8"),
    "surrogate bytes": (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
    "lone surrogate": (b'{"a": "\\ud800"}', "surrogate"),
    "too deep": (b'{"a":' * 70 + b"1" + b"}" * 70, f"at most {MAX_DEPTH}"),
    "far too deep": (b"[" * 100000, "not JSON"),
    "huge number": (b'{"a": 1e400}', "column"),
    "endless integer": (b'{"a": ' + b"1" * 5000 + b"}", "number"),
    "raw NUL": (b'{"a": "\x00"}', "control character"),
    "two objects": (b'{"a": 1} {"b": 2}', "column"),
    "a text": (b'"abc"', "found text"),
    "a number": (b"5", "found a number"),
    "null": (b"null", "found null"),
    "Python": (b"{'a': 1}", "column"),
}
BAD["Latin-1"] = ('{"a": "café"}'.encode("latin-1"), "not UTF-8")


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_with_their_line(tmp_path, name):
    data, words = BAD[name]
    error = refusal(tmp_path, b'{"ok": 1}\n\n' + data + b'\n{"ok": 2}\n')
    assert words in error.what
    assert error.where.startswith(f"{tmp_path / 'rows.jsonl'}:3")


def test_half_a_last_line_comes_after_the_good_ones(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": ')
    found = []
    with pytest.raises(DataError, match="cut off"):
        found.extend(row.value for row in RowReader(path))
    assert found == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    "data", [b"", b"\n\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"[]", b" [ ] \n"]
)
def test_no_rows(tmp_path, data):
    assert "no rows" in refusal(tmp_path, data).what


MAGIC = {
    "gzip": gzip.compress(b'{"a": 1}'),
    "zip": b"PK\x03\x04rest",
    "Parquet": b"PAR1rest",
    "zstandard": b"\x28\xb5\x2f\xfdrest",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "xz": b"\xfd7zXZ\x00rest",
}


@pytest.mark.parametrize("name", MAGIC)
def test_other_formats_in_disguise(tmp_path, name):
    assert name in refusal(tmp_path, MAGIC[name]).what


def test_what_is_no_file(tmp_path, monkeypatch):
    for path, words in [(tmp_path, "a directory"), (tmp_path / "no.jsonl", "no such file")]:
        with pytest.raises(DataError, match=words):
            RowReader(path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="a pipe"):  # and does not wait for a writer
        RowReader(pipe)
    with pytest.raises(DataError, match="a device"):
        RowReader("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        server.bind("s")
        with pytest.raises(DataError, match="a socket"):
            RowReader("s")


def test_a_line_over_the_cap_is_never_held(tmp_path):
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        for _ in range(100):
            file.write(b"x" * 2**20)
        file.write(b'"}\n')
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="64 MiB") as caught:
            list(RowReader(path))
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()
    assert caught.value.where.endswith(":2")


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "many.jsonl"
    with path.open("wb") as file:
        file.writelines(b'{"a": "%d"}\n' % i for i in range(60000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in RowReader(path)) == 60000
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_a_json_list_tells_where_each_row_starts(tmp_path):
    data = b'\n[\n  {"a": 1},\n  {"a":\n   2}\n,{"a": "]},{"}, {"a": "\\"]"}\n]\n'
    assert rows(tmp_path, data, "rows.json") == [
        ({"a": 1}, 3),
        ({"a": 2}, 4),
        ({"a": "]},{"}, 6),
        ({"a": '"]'}, 6),
    ]


@pytest.mark.parametrize(
    ("data", "words", "line"),
    [
        (b'[\n{"a": 1}\n{"a": 2}]', "comma", 3),
        (b'[\n{"a": 1},\n]', "every element", 3),
        (b"[1, 2]", "every element", 1),
        (b'[{"a": 1}', "comma or ']'", 1),
        (b'[\n{"a": 1},\n{"a": "', "ends in the middle", 3),
        (b'[{"a": 1}] x', "nothing may follow", 1),
        (b'[{"a": 1},\n{"a": NaN}]', "NaN", 2),
        (b'[{"a": 1, "a": 2}]', "twice", 1),
    ],
)
def test_bad_json_lists(tmp_path, data, words, line):
    error = refusal(tmp_path, data, "rows.json")
    assert words in error.what
    assert error.where.endswith(f":{line}")


def test_a_row_may_be_a_list_of_two(tmp_path):
    found = [({"pair": ["q", {"answer": "a"}]}, 1), ({"pair": ["r", "b"]}, 3)]
    assert rows(tmp_path, b'["q", {"answer": "a"}]\n\n["r", "b"]') == found
    assert rows(tmp_path, b' [ ["q", {"answer": "a"}],\n\n["r", "b"] ]', "rows.json") == found
    assert rows(tmp_path, b'{"a": 1}\n["r", "b"]')[1] == ({"pair": ["r", "b"]}, 2)


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 100])
def test_a_line_of_two_is_told_from_a_list_of_rows(tmp_path, chunk_bytes):
    path = tmp_path / "rows.json"
    for data, values in (
        (b'  ["q" , "a"]\n["r","b"]\n', [{"pair": ["q", "a"]}, {"pair": ["r", "b"]}]),
        (b' [\n {"a": 1}, ["q", "a"]]', [{"a": 1}, {"pair": ["q", "a"]}]),
    ):
        path.write_bytes(data)
        assert [row.value for row in RowReader(path, chunk_bytes=chunk_bytes)] == values


@pytest.mark.parametrize("line", [b'["q"]', b'["q", "a", "b"]', b'"q"', b"7", b"null", b"true"])
def test_other_values_are_no_rows(tmp_path, line):
    error = refusal(tmp_path, b'{"a": 1}\n' + line)
    assert "a row is a JSON object, or a list of a question and an answer; found" in error.what
    assert error.where.endswith(":2")


def test_one_object_over_many_lines(tmp_path):
    data = json.dumps({"a": [1, {"b": 2}]}, indent=2).encode()
    assert rows(tmp_path, data, "one.json") == [({"a": [1, {"b": 2}]}, 1)]
    assert "cut off" in refusal(tmp_path, data, "one.jsonl").what


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=4
        )
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6), VALUES, max_size=5
)


@settings(max_examples=200, deadline=None)
@given(value=OBJECTS, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_any_object_is_read_as_the_standard_library_reads_it(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    found = parse_object(text.encode(), Origin("x", 1))
    assert json.dumps(found) == json.dumps(json.loads(text))


@settings(max_examples=200, deadline=None)
@given(
    value=OBJECTS, key=st.text(st.characters(exclude_categories=["Cs"]), max_size=6), other=VALUES
)
def test_a_key_twice_is_always_found(value, key, other):
    body = json.dumps(value)[1:-1]
    text = "{" + json.dumps(key) + ":" + json.dumps(other) + (", " if body else "") + body + "}"
    if key in value:
        with pytest.raises(DataError, match="twice"):
            parse_object(text.encode(), Origin("x", 1))
    else:
        assert set(parse_object(text.encode(), Origin("x", 1))) == {key, *value}


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(OBJECTS, min_size=1, max_size=5),
    indent=st.sampled_from([None, 1]),
    chunk=st.integers(1, 40),
)
def test_lists_in_any_chunks(tmp_path_factory, values, indent, chunk):
    path = tmp_path_factory.mktemp("lists") / "rows.json"
    path.write_text(json.dumps(values, indent=indent), encoding="utf-8")
    found = [row.value for row in RowReader(path, chunk_bytes=chunk)]
    assert json.dumps(found) == json.dumps(values)


@pytest.mark.parametrize(
    "data",
    [
        b'{"data": [{"a": 1},\n {"a": 2}]}',
        b'\xef\xbb\xbf \n{\n "data" :\n [{"a": 1},\n{"a": 2}\n]}\n',
    ],
)
@pytest.mark.parametrize("chunk_bytes", [40, 2**20])
def test_a_list_under_data(tmp_path, data, chunk_bytes):
    path = tmp_path / "rows.json"
    path.write_bytes(data)
    found = list(RowReader(path, chunk_bytes=chunk_bytes))
    assert [row.value for row in found] == [{"a": 1}, {"a": 2}]
    lines = data.split(b"\n")
    for row in found:
        assert json.dumps(row.value).encode() in lines[row.origin.line - 1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"data": [{"a": 1}], "version": 2}', "nothing may stand beside"),
        (b'{"data": [{"a": 1}]}\n{"data": [{"a": 2}]}', "nothing may follow"),
        (b'{"data": [{"a": 1}]', "nothing may stand beside"),
        (b'{"data": [1]}', "every element"),
    ],
)
def test_a_list_under_data_stands_alone(tmp_path, data, words):
    assert words in refusal(tmp_path, data, "rows.json").what


def test_a_row_of_a_jsonl_file_may_have_a_column_data(tmp_path):
    assert rows(tmp_path, b'{"data": [{"a": 1}]}') == [({"data": [{"a": 1}]}, 1)]


def test_a_name_and_a_stream_of_its_own(tmp_path):
    path = tmp_path / "kept.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    assert [str(row.origin) for row in RowReader(path, name="train.parquet")] == ["train.parquet:1"]
    with path.open("rb") as stream:
        found = [row.value for row in RowReader("elsewhere.jsonl", stream=stream)]
        assert found == [{"a": 1}]
        assert not stream.closed


def test_what_can_be_imported_is_told_its_name(tmp_path):
    assert ".parquet" in refusal(tmp_path, b"PAR1 and so on").remedy
    assert ".arrow" in refusal(tmp_path, b"ARROW1 and so on").remedy
