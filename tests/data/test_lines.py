"""A file read in parts is the file read at once: the same rows, lines, faults."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.example import Origin
from hone.data.formats import RowFormat
from hone.data.index_file import open_index, write_index
from hone.data.lines import LineIndex, Part, index_list, join_parts, parts_of, read_part
from hone.data.reader import Row, RowReader
from hone.data.strict import parse_row
from hone.errors import DataError

GOOD = [
    json.dumps({"user": text, "assistant": text}, ensure_ascii=False).encode()
    for text in ["a", "é\u2028\u0085", "long " * 20, "\\n", "{}[]", ""]
]
BAD = [b"{", b"[]", b'{"user": 1, "assistant": "x"}', b'{"user": "a"}', b"\xff", b"NaN"]
BLANK = [b"", b" ", b"\t"]
LINES = st.lists(st.tuples(st.sampled_from(GOOD + BAD + BLANK), st.sampled_from([b"\n", b"\r\n"])), max_size=12)  # fmt: skip


def read(form=None):
    form = form or RowFormat("turns")
    return form.read


def in_parts(path, edges, *, keep_faults=True):
    parts = [
        read_part(str(path), a, b, read=read(), keep_faults=keep_faults, contents=True)
        for a, b in pairwise(edges)
    ]
    return join_parts(
        [Part.from_json(json.loads(json.dumps(p.to_json()))) for p in parts], had_bom=False
    )


@given(
    lines=LINES,
    cuts=st.lists(st.integers(4, 600), max_size=4),
    bom=st.booleans(),
    end=st.booleans(),
)
def test_parts_make_the_whole(tmp_path_factory, lines, cuts, bom, end):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    data = b"".join(line + ending for line, ending in lines)
    if not end:
        data = data.removesuffix(b"\n").removesuffix(b"\r")
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + data)
    size = path.stat().st_size
    edges = sorted({0, size, *(cut for cut in cuts if cut < size)}) if size else [0, 0]
    index = in_parts(path, edges)
    whole = in_parts(path, [0, size])
    for name in ("start", "size", "line", "content"):
        assert getattr(index, name).tolist() == getattr(whole, name).tolist()
    assert index.faults == whole.faults
    assert index.blank_lines == whole.blank_lines
    raw = path.read_bytes()
    good = [n for n, (line, _) in enumerate(lines, 1) if line in GOOD]
    assert index.line.tolist() == good
    for place, number in enumerate(good):
        start, length = int(index.start[place]), int(index.size[place])
        assert raw[start : start + length] == lines[number - 1][0]
    bad = [n for n, (line, _) in enumerate(lines, 1) if line in BAD]
    assert [fault.line for fault in index.faults] == bad


def test_the_first_fault_is_the_error_of_reading_it_all(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([GOOD[0], GOOD[1], BAD[2], GOOD[0], BAD[0]]))
    form = RowFormat("turns")
    with pytest.raises(DataError) as wanted:
        list(map(form.read, RowReader(path)))
    size = path.stat().st_size
    for cut in range(1, size):
        index = in_parts(path, [0, cut, size], keep_faults=False)
        found = index.faults[0].error(str(path))
        assert (found.what, found.where, found.remedy) == (
            wanted.value.what, wanted.value.where, wanted.value.remedy,
        )  # fmt: skip


@given(
    rows=st.lists(st.sampled_from(GOOD), min_size=1, max_size=8),
    pad=st.sampled_from(["", " ", "\n"]),
)
def test_a_list_is_indexed_by_byte(tmp_path_factory, rows, pad):
    path = tmp_path_factory.mktemp("list") / "rows.json"
    space = pad.encode()
    path.write_bytes(b"[" + space + (b"," + space).join(rows) + space + b"]" + space)
    index = index_list(RowReader(path), read=read(), keep_faults=False, contents=False)
    raw = path.read_bytes()
    found = [raw[a : a + n] for a, n in zip(index.start.tolist(), index.size.tolist(), strict=True)]
    assert found == rows


def test_an_index_is_found_again_whole_or_not_at_all(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([GOOD[0], BAD[2], b"", GOOD[1]]))
    index = in_parts(path, [0, path.stat().st_size])
    write_index(tmp_path / "key", index)
    found = open_index(tmp_path / "key", contents=True)
    assert isinstance(found, LineIndex)
    assert found.faults == index.faults
    assert found.blank_lines == 1
    assert found.start.tolist() == index.start.tolist()
    bare = LineIndex(index.start, index.size, index.line, index.content[:0])
    write_index(tmp_path / "bare", bare)
    assert open_index(tmp_path / "bare", contents=True) is None
    assert open_index(tmp_path / "bare", contents=False) is not None
    (kept,) = (tmp_path / "key").iterdir()
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(data)
    assert open_index(tmp_path / "key", contents=False) is None


def test_the_parts_of_a_file_cover_it():
    for size in (0, 1, 2**24 - 1, 2**24, 2**24 + 1, 2**26 + 5):
        parts = parts_of(size)
        assert parts[0][0] == 0
        assert parts[-1][1] == size
        assert all(a[1] == b[0] for a, b in pairwise(parts))


MESSAGES = [
    b'{"messages": [{"role": "user", "content": "q: \\": x"}, {"role": "assistant", "content": "a"}]}',
    b'{"messages":[{"role":"system","content":""},{"role":"user","content":"q"},{"role":"assistant","content":"a: b"}]}',
    b'{"messages": [{"content": "q", "role": "user"}, {"role": "assistant", "content": "\xc3\xa9"}]}',
]
DOUBTFUL = [
    b'{"messages": [{"role": "user", "role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}',
    b'{"messages": [{"role": "user", "content" : "x", "content": "q"}, {"role": "assistant", "content": "a"}]}',
    b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "messages": 1}',
    b'{"messages": 1, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}',
    b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]}',
    b'{"messages": [{"role": "user", "content": "q"}]}',
    b'{"messages": [{"role": "bot", "content": "q"}, {"role": "assistant", "content": "a"}]}',
    b'{"messages": [{"role": "user", "content": 1}, {"role": "assistant", "content": "a"}]}',
    b'{"messages": [{"role": "user", "content": "\xff"}, {"role": "assistant", "content": "a"}]}',
    b'{"messages": {}}', b'{"messages": []}', b'[]', b'{', b'NaN', b'{"messages" : []}',
]  # fmt: skip


@given(lines=st.lists(st.sampled_from(MESSAGES + DOUBTFUL), max_size=12))
def test_what_is_skimmed_is_what_is_read(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("skim") / "rows.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    size = path.stat().st_size
    form = RowFormat("messages")
    found = {}
    for name, skim in (("careful", None), ("skimmed", form.skim)):
        part = read_part(
            str(path), 0, size, read=form.read, keep_faults=True, contents=False, skim=skim
        )
        found[name] = (part.start.tolist(), part.size.tolist(), part.line.tolist(), part.faults)
    assert found["careful"] == found["skimmed"]


def test_plain_rows_are_skimmed():
    form = RowFormat("messages")
    form.read(as_row(MESSAGES[0]))
    assert [form.skim(line) for line in MESSAGES] == [False, True, True]  # the first quotes a colon
    assert not any(form.skim(line) for line in DOUBTFUL)


def as_row(line):
    origin = Origin("f", 1)
    return Row(parse_row(line, origin), origin)
