"""CSV and TSV: text byte for byte, and every departure from RFC 4180 refused with its line."""

from __future__ import annotations

import csv
import io
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.importers.delimited import JSON_COLUMNS, delimited_rows
from hone.data.importers.findings import Findings
from hone.errors import DataError


def rows(data: bytes, delimiter: str = ",", findings: Findings | None = None):
    stream = io.BytesIO(data)
    return list(delimited_rows(stream, "t.csv", delimiter, findings or Findings()))


def refusal(data: bytes) -> DataError:
    with pytest.raises(DataError) as caught:
        rows(data)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01", "001", "true", "1e5", "null", "NULL", "NaN", "", " x ", "-0", "1.0", "0x1F",
        "N/A", "None", "日本", "e\u0301", "\u2028", "\x85", "\x00", "\u202eabc", "=1+1", "[1", "{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_every_field_is_the_text_that_stands_there(text, delimiter):
    data = f"a{delimiter}b\n{text}{delimiter}x\n".encode()
    assert rows(data, delimiter) == [{"a": text, "b": "x"}]


cells = st.text(st.characters(codec="utf-8") | st.sampled_from('",\t\r\n;\ufeff '), max_size=12)


names_of_text = cells.filter(lambda name: name.strip() and name not in JSON_COLUMNS)


@settings(max_examples=150)
@given(
    st.lists(names_of_text, min_size=1, max_size=4, unique=True),
    st.data(),
    st.sampled_from([",", "\t"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_another_writer_wrote_is_read_back(names, data, delimiter, quoting):
    if len(names) == 1 and any(mark in names[0] for mark in ",;\t|"):
        names = [*names, names[0] + "x"]
    row = st.lists(cells, min_size=len(names), max_size=len(names))
    body = data.draw(st.lists(row, max_size=5))
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([names, *body])
    raw = text.getvalue().encode()
    if raw.startswith(b"\xef\xbb\xbf"):
        raw = b"\xef\xbb\xbf" + raw  # else the first name's own mark is taken for the file's
    wanted = [dict(zip(names, values, strict=True)) for values in body]
    found = rows(raw, delimiter)
    assert found == wanted


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(st.sampled_from('ab",\r\n'), max_size=30).map(str.encode))
def test_no_bytes_do_more_than_be_refused(data):
    try:
        found = rows(data)
    except DataError:
        return
    text = data.decode().removeprefix("\ufeff")
    strict = csv.reader(io.StringIO(text, newline=""), strict=True)
    records = [record for record in strict if record]
    assert [list(one.values()) for one in found] == records[1:]


def test_line_ends_and_blank_lines():
    findings = Findings()
    data = b'a,b\r\n1,"x\r\ny\nz"\r\n\r\n\n2,y'
    assert rows(data, findings=findings) == [{"a": "1", "b": "x\r\ny\nz"}, {"a": "2", "b": "y"}]
    assert findings.count("blank-lines") == 2


def test_the_byte_order_mark_is_told():
    findings = Findings()
    assert rows(b"\xef\xbb\xbfa,b\n1,2\n", findings=findings) == [{"a": "1", "b": "2"}]
    assert findings.notices("t.csv") == [
        ("byte-order-mark", "t.csv: the byte order mark at the start was removed (1 files)")
    ]


BAD = {
    "too few": (b"a,b\n1,2\n3\n", "1 fields where the header names 2", 3),
    "too many": (b"a,b\n1,2,3\n", "3 fields where", 2),
    "no name": (b"a, \n1,2\n", "column 2 has no name", 1),
    "twice": (b"a,b,a\n", "two columns are named 'a'", 1),
    "semicolons": (b"a;b\n1;2\n", "';' in it", 1),
    "tabs": (b"a\tb\n1\t2\n", "'\\t' in it", 1),
    "never closed": (b'a,b\n1,2\n1,"2\n3,4\n', "opened and never closed", 3),
    "never closed after doubled": (b'a,b\n"x""y,2\n', "opened and never closed", 2),
    "inside": (b'a,b\n1,5" pipe\n', "stands in a field that has none around it (field 2", 2),
    "inside twice": (b'a,b\nsay "hi",2\n', "stands in a field that has none", 2),
    "after": (b'a,b\n"1"x,2\n', "'x,2' follows a closing quote (field 1", 2),
    "later line": (b'a,b\n"1\n2",3\n4,5,6\n', "3 fields", 4),
    "old Mac": (b"a,b\r1,2\r", "carriage return", 1),
    "not UTF-8": ("a,b\ncaf\u00e9,1\n".encode("latin-1"), "byte 3 of the line (0xe9) is not UTF-8", 2),
    "not UTF-8 in quotes": (b'a,b\n"x\n\xff",1\n', "is not UTF-8", 3),
    "surrogate": (b"a,b\n\xed\xa0\x80,1\n", "not UTF-8", 2),
    "gzip": (b"\x1f\x8b\x08 and so on, and on", "gzip", None),
    "zip": (b"PK\x03\x04 an Excel workbook", "zip", None),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "UTF-16", None),
    "Parquet": (b"PAR1 and so on, and on", "Parquet", None),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_strict_is_refused_with_its_line(name):
    data, words, line = BAD[name]
    error = refusal(data)
    assert words in error.what
    assert error.where == ("t.csv" if line is None else f"t.csv:{line}")


def test_rows_before_a_bad_one_are_given_first():
    given_rows = delimited_rows(io.BytesIO(b"a,b\n1,2\n3\n"), "t.csv", ",", Findings())
    assert next(given_rows) == {"a": "1", "b": "2"}
    with pytest.raises(DataError, match="1 fields"):
        next(given_rows)


def test_json_in_columns_that_are_known_to_hold_it():
    data = (
        b"messages,note,tools\n"
        b'"[{""role"": ""user"", ""content"": ""001"", ""n"": 123456789012345678901}]","[1]",\n'
        b'hello,{},{"a":1}\n'.replace(b'{"a":1}', b'"{""a"": 1}"')
    )
    assert rows(data) == [
        {
            "messages": [{"role": "user", "content": "001", "n": 123456789012345678901}],
            "note": "[1]",
            "tools": "",
        },
        {"messages": "hello", "note": "{}", "tools": {"a": 1}},
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{'role': 'user'}]", "'messages' begins like JSON and is none"),
        ('[{"a": NaN}]', "NaN"),
        ('[{"a": 1, "a": 2}]', "'a' stands twice"),
        ('[1], "b": [2]', "begins like JSON"),
        ("[1", "begins like JSON"),
    ],
)
def test_bad_json_in_such_a_column_is_refused(text, words):
    quoted = text.replace('"', '""')
    error = refusal(f'id,messages\n1,"{quoted}"\n'.encode())
    assert words in error.what
    assert error.where == "t.csv:2 /messages"


def test_an_open_quote_does_not_swallow_a_whole_file_into_memory():
    def endless():
        yield b'a,b\n"open,1\n'
        while True:
            yield b"x" * 2**20 + b"\n"

    class Stream(io.RawIOBase):
        def __init__(self):
            self.parts, self.left, self.at = endless(), b"", 0

        def readable(self):
            return True

        def readinto(self, buffer):
            self.left = self.left or next(self.parts)
            part = self.left[: len(buffer)]
            self.left = self.left[len(part) :]
            buffer[: len(part)] = part
            return len(part)

        def seekable(self):
            return True

        def tell(self):
            return 0

        def seek(self, *where):
            self.parts, self.left = endless(), b""
            return 0

    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="64 MiB") as caught:
            list(delimited_rows(io.BufferedReader(Stream()), "t.csv", ",", Findings()))
        assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    finally:
        tracemalloc.stop()
    assert caught.value.where == "t.csv:2"
