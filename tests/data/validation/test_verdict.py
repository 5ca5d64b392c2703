"""A whole file judged: every bad row, the same in one process and in several, and what is no file of rows."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.config.sections import DataSection
from hone.data import reader
from hone.data.formats import RowFormat
from hone.data.importers.row_file import RowFile
from hone.data.reader import Row
from hone.data.strict import parse_row
from hone.data.validation import scan
from hone.data.validation.judge import Judge
from hone.data.validation.keys import PAD, keep_keys
from hone.data.validation.scan import join, scan_part
from hone.data.validation.verdict import Verdict, judge_file
from hone.errors import DataError
from tests.data.mixed_rows import bad, good, line
from tests.data.rows import A, U

GOOD = line({"messages": [U, A]})
ROWS = [
    GOOD,
    b"",
    line({"messages": [U]}),
    b"{",
    GOOD + b"\r",
    b" \t",
    b"3",
    GOOD,
    b'{"a":1,"a":2}',
]
FOUND = [(3, ""), (4, ""), (7, ""), (9, "")]


def judged(path: Path, content: bytes, **how: Any) -> Verdict:
    path.write_bytes(content)
    return judge_file(
        RowFile(path, "rows"), DataSection(), **{"rules": "full", "workers": 0, **how}
    )


def places(verdict: Verdict) -> list[tuple[int, str]]:
    return [(one.line, one.pointer) for one in verdict.findings]


def test_every_bad_row_is_told_and_blank_lines_are_none(tmp_path: Path) -> None:
    verdict = judged(tmp_path / "r.jsonl", b"\n".join(ROWS))
    assert places(verdict) == FOUND
    assert (verdict.rows, verdict.blank_lines, verdict.errors) == (7, 2, 4)


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_several_processes_say_the_same_in_the_same_order(tmp_path: Path, ending: bytes) -> None:
    content = b"\xef\xbb\xbf" + b"\n".join(ROWS * 40) + ending
    alone = judged(tmp_path / "r.jsonl", content)
    assert judged(tmp_path / "r.jsonl", content, workers=2, part_bytes=977) == alone
    assert len(alone.findings) == 160
    some = judged(tmp_path / "r.jsonl", content, workers=2, part_bytes=977, keep=7)
    assert some.findings == alone.findings[:7]
    assert some.errors == 160


@given(
    st.lists(st.one_of(good, bad, st.just(b"")), max_size=8),
    st.integers(1, 60),
    st.binary(max_size=3),
)
def test_parts_of_any_size_come_to_the_same(rows: list[bytes], size: int, tail: bytes) -> None:
    content = b"\n".join([*rows, tail])
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"hone-scan-{os.getpid()}.jsonl"
    try:
        path.write_bytes(content)
        whole = scan_part(str(path), 0, len(content), Judge("messages"), None)
        cuts = [*range(0, len(content), size), len(content)]
        parts = [scan_part(str(path), a, b, Judge("messages"), None) for a, b in pairwise(cuts)]
        assert join(parts, None) == whole
        assert whole.lines == len(content.split(b"\n")) - (not content or content.endswith(b"\n"))
    finally:
        path.unlink(missing_ok=True)


@given(st.lists(st.one_of(good, bad), min_size=1, max_size=8))
def test_what_is_good_can_be_read_and_what_training_refuses_is_bad(rows: list[bytes]) -> None:
    form = RowFormat("messages")
    for number, data in enumerate(rows, 1):
        finding = Judge("messages", rules="first").look(data, number)
        try:
            form.read(Row(parse_row(data, reader.Origin("f", number)), reader.Origin("f", number)))
        except DataError:
            assert finding is not None


def test_a_list_is_judged_like_lines(tmp_path: Path) -> None:
    rows = [{"messages": [U, A]}, {"messages": [U]}, 3, {"messages": [U, A]}]
    verdict = judged(tmp_path / "r.json", json.dumps(rows, indent=1).encode())
    assert [one.what.partition(":")[0] for one in verdict.findings] == [
        "no assistant turn",
        "a row is a JSON object, or a list of a question and an answer; found a number",
    ]
    assert verdict.rows == 4
    broken = judged(tmp_path / "r.json", json.dumps(rows).encode()[:-1])
    assert broken.errors == 3
    assert "in the middle of the list" in broken.findings[-1].what


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \t\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("shape", ["auto", "messages"])
def test_a_file_without_rows_is_an_error(tmp_path: Path, content: bytes, shape: Any) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    section = DataSection(format=shape)
    verdict = judge_file(RowFile(path, "rows"), section, rules="full", workers=0)
    assert [(one.line, one.what[:22]) for one in verdict.findings] == [
        (0, "the file holds no rows")
    ]


def test_what_is_no_file_of_text_is_refused_by_name(tmp_path: Path) -> None:
    for content, kind in ((b"PAR1" + bytes(20), "Parquet"), ("{}".encode("utf-16"), "UTF-16")):
        verdict = judged(tmp_path / "r.jsonl", content)
        assert verdict.errors == 1
        assert kind in verdict.findings[0].what
    for path in (tmp_path, tmp_path / "absent", Path("/dev/null")):
        verdict = judge_file(RowFile(path, "rows"), DataSection(), rules="full", workers=0)
        assert verdict.errors == 1
        assert verdict.findings[0].line == 0
    os.mkfifo(tmp_path / "pipe")
    verdict = judge_file(RowFile(tmp_path / "pipe", "rows"), DataSection(), rules="full", workers=0)
    assert "a pipe" in verdict.findings[0].what


def test_a_row_that_is_too_large_is_one_error_and_the_next_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (scan, reader):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", 200)
    monkeypatch.setattr(scan, "_CHUNK_BYTES", 64)
    large = line({"messages": [U, {**A, "content": "x" * 1000}]})
    content = b"\n".join([GOOD, large, GOOD, b"3", large])
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    seen = scan_part(str(path), 0, len(content), Judge("messages"), None)
    assert [(one.line, one.what[:17]) for one in seen.findings] == [
        (2, "the row is larger"),
        (4, "a row is a JSON o"),
        (5, "the row is larger"),
    ]
    assert (seen.lines, seen.rows) == (5, 5)


@pytest.mark.parametrize(
    ("rows", "keys", "kept"),
    [
        ([b'{"a":1}', b'{"b":{"c":2}}'], 3, True),
        ([b'{"a":1,"a":1}', b'{"b":2}'], 2, False),
        ([b'{"a":1,"a" :1}'], 1, False),
        ([b'{"a":1,"a"  :1}'], 1, False),
        ([b'{"a":1,"a"\t:1}'], 1, False),
        ([b'{"a\\\\":1,"a\\\\":2}'], 1, False),
        ([b'{"a":"say \\"b\\": c"}'], 1, True),
        ([b'{"a":"french : text"}'], 1, True),
        ([b'":":'], 1, False),
        ([b""], 0, True),
    ],
)
def test_keys_of_many_rows_are_counted_together(rows: list[bytes], keys: int, kept: bool) -> None:
    text = np.frombuffer(PAD + b"\n".join(rows), dtype=np.uint8)
    assert keep_keys(text, keys) is kept


def test_a_double_key_among_plain_rows_is_found(tmp_path: Path) -> None:
    twice = b'{"messages": [{"role": "user", "content": "a", "content": "b"}, {"role": "assistant", "content": "c"}]}'
    verdict = judged(tmp_path / "r.jsonl", b"\n".join([GOOD] * 50 + [twice] + [GOOD] * 50))
    assert places(verdict) == [(51, "")]
    assert "twice" in verdict.findings[0].what


def test_the_first_row_with_a_known_shape_settles_it(tmp_path: Path) -> None:
    rows = [b"3", line({"what": 1}), line({"user": "a", "assistant": "b"}), GOOD]
    verdict = judged(tmp_path / "r.jsonl", b"\n".join(rows))
    assert verdict.shape == "turns"
    assert [one.line for one in verdict.findings] == [1, 2, 4]


def test_a_file_that_changes_meanwhile_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.jsonl"

    def grow(*args: Any) -> Any:
        with path.open("ab") as file:
            file.write(b"\n")
        return scan_part(*args)

    monkeypatch.setattr("hone.data.validation.verdict.scan_part", grow)
    assert "changed while" in judged(path, GOOD).findings[-1].what
