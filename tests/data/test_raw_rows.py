"""Raw rows: every row as it stands, with its line; a bad one does not end the file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.changes import ChangeLedger
from hone.data.raw_rows import RawRows
from hone.data.reader import MAX_ROW_BYTES, RowReader
from hone.errors import DataError
from tests.data.mixed_rows import mixed, rows_of


def raw(path: Path, data: bytes) -> list[tuple[int, bytes]]:
    path.write_bytes(data)
    return [(one.origin.line, one.data) for one in RawRows(path)]


def test_lines_byte_for_byte(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"a": 1} \r\n\n  {"b":\xe2\x80\xa8 2}\nnot json\n{"c": 3}'
    found = raw(tmp_path / "rows.jsonl", data)
    assert found == [
        (1, b'{"a": 1} \r'),
        (3, b'  {"b":\xe2\x80\xa8 2}'),
        (4, b"not json"),
        (5, b'{"c": 3}'),
    ]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_elements_of_a_list(tmp_path: Path, name: str) -> None:
    data = b' [\n {"a": "],[{"},\n\n {"b": [1, {"c": "\\""}]}, 3, {"d": 1, "d": 2}\n] \n'
    assert raw(tmp_path / name, data) == [
        (2, b'{"a": "],[{"}'),
        (4, b'{"b": [1, {"c": "\\""}]}'),
        (4, b"3"),
        (4, b'{"d": 1, "d": 2}'),
    ]


def test_rows_under_data(tmp_path: Path) -> None:
    assert raw(tmp_path / "raw.json", b'{\n"data": [{"a": 1},\n{"b": 2}]\n}\n') == [
        (2, b'{"a": 1}'),
        (3, b'{"b": 2}'),
    ]


def test_one_object_over_many_lines(tmp_path: Path) -> None:
    assert raw(tmp_path / "raw.json", b'{\n "a": 1\n}\n') == [(1, b'{\n "a": 1\n}')]


def test_lines_that_are_lists(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'["q", {"answer": "a"}]\n["r", {"answer": "b"}]\n')
    assert [one.parse().value for one in RawRows(path)] == [
        {"pair": ["q", {"answer": "a"}]},
        {"pair": ["r", {"answer": "b"}]},
    ]


def test_strict_in_lists_too(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'["q", {"answer": "a", "answer": "b"}]\n')
    with pytest.raises(DataError, match="twice"):
        next(iter(RawRows(path))).parse()


@pytest.mark.parametrize(
    "data",
    [b'[{"a": 1}', b'[{"a": 1},, {"b": 2}]', b'[{"a": 1},]', b'[{"a": 1}] x', b'[{"a": "1}]'],
)
def test_a_list_that_is_broken_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        raw(tmp_path / "rows.json", data)
    assert "rows.json" in str(caught.value.where)


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "no rows"), (b"\n\n", "no rows"), (b"PAR1xx", "Parquet"), (b"\x1f\x8bxx", "gzip")],
)
def test_no_file_of_rows(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        raw(tmp_path / "rows.jsonl", data)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        RawRows(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="directory"):
        RawRows(tmp_path)


def test_a_line_that_is_too_large_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"b": "')
        file.write(b"x" * (MAX_ROW_BYTES + 2**21))
        file.write(b'"}\n{"c": 3}\n')
    rows = list(RawRows(path))
    assert [row.origin.line for row in rows] == [1, 2, 3]
    assert rows[2].parse().value == {"c": 3}
    with pytest.raises(DataError, match="larger than"):
        rows[1].parse()


@given(mixed)
def test_as_many_rows_as_lines(tmp_path_factory: pytest.TempPathFactory, lines) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    data = b"\n".join(lines) + b"\n"
    path.write_bytes(data)
    if not rows_of(lines) or data.lstrip().startswith(b"[]"):
        return
    rows = RawRows(path)
    assert len(list(rows)) == rows_of(lines)
    assert rows.blank_lines == len(lines) - rows_of(lines)
    assert rows.sha256 == hashlib.sha256(data).hexdigest()


def test_the_byte_order_mark_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{}\n\n")
    ledger = ChangeLedger("rows.jsonl")
    for _, fate in RawRows(path).fates(ledger):
        fate.keep()
    assert (ledger.had_bom, ledger.blank_lines, ledger.kept) == (True, 1, 1)


@given(st.lists(st.dictionaries(st.text(), st.text()), min_size=1), st.integers(0, 3))
def test_a_list_as_the_one_reader_reads_it(tmp_path_factory, values, indent) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps(values, indent=indent or None))
    ours = [(row.value, row.origin) for row in (one.parse() for one in RawRows(path))]
    assert ours == [(row.value, row.origin) for row in RowReader(path)]
