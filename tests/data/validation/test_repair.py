"""Rows repaired: what each repair does, that no text changes, and that what is written passes the check."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.config.sections import DataSection
from hone.data.validation.repair import repaired_bytes, repaired_row
from hone.errors import DataError
from hone.recipes.change import Places
from hone.recipes.repair import repair
from hone.recipes.validate import validate
from tests.data.mixed_rows import bad, good, texts
from tests.data.rows import A, S, U

CALL = {"name": "f", "arguments": {"a": 1.50}}
TEXT = '{"a": 1.5}'
FULL = {"type": "function", "function": {"name": "f", "arguments": TEXT}}


def fixed(row: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    return repaired_row(row, json.dumps(row).encode(), told.append), told


REPAIRS: dict[str, tuple[Any, Any]] = {
    "role": ([{"role": "Human", "content": "a"}, {"role": "gpt", "content": "b"}], [{**U, "content": "a"}, {**A, "content": "b"}]),
    "from and value": ([{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], [{**U, "content": "a"}, {**A, "content": "b"}]),
    "older call": ([U, {"role": "assistant", "content": None, "function_call": CALL}], [U, {"role": "assistant", "content": None, "tool_calls": [FULL]}]),
    "bare call": ([U, {"role": "assistant", "content": "", "tool_calls": [CALL]}], [U, {"role": "assistant", "content": "", "tool_calls": [FULL]}]),
    "one call": ([U, {"role": "assistant", "tool_calls": FULL}], [U, {"role": "assistant", "tool_calls": [FULL]}]),
    "number": ([U, {"role": "assistant", "content": 42}], [U, {**A, "content": "42"}]),
    "true": ([U, {"role": "assistant", "content": True}], [U, {**A, "content": "true"}]),
    "trailing turns": ([U, A, U, U], [U, A]),
    "trailing empty reply": ([U, A, U, {**A, "content": ""}], [U, A]),
    "silent system": ([{**S, "content": ""}, U, A], [U, A]),
    "other key": ([{**U, "zzz_time": 3}, A], [U, A]),
    "refusal": ([U, {"role": "assistant", "content": None, "refusal": "no"}], [U, {**A, "content": "no"}]),
}  # fmt: skip


@pytest.mark.parametrize("name", REPAIRS)
def test_what_can_be_repaired_is(name: str) -> None:
    before, after = REPAIRS[name]
    row, told = fixed({"messages": before, "id": 7})
    assert row == {"messages": after, "id": 7}
    assert told


@pytest.mark.parametrize(
    "messages",
    [
        [U, A],
        [{"role": "robot", "content": "a"}, A],
        [U, {"role": "assistant", "contnet": "slip of the pen"}],
        [U, {"role": "assistant", "content": None}, A],
        [U, {"role": "assistant", "content": ["part"]}],
        [],
        [3, None],
        [U],
    ],
)
def test_what_would_need_a_guess_is_left_alone(messages: list[Any]) -> None:
    assert fixed({"messages": messages}) == ({"messages": messages}, [])


def test_a_number_keeps_its_spelling() -> None:
    data = (
        b'{"messages": [{"role": "user", "content": 1.50}, {"role": "assistant", "content": 1e5}]}'
    )
    row = repaired_row(json.loads(data), data, lambda _: None)
    assert [one["content"] for one in row["messages"]] == ["1.50", "1e5"]


def test_tools_become_a_list_of_functions() -> None:
    bare = {"name": "f", "parameters": {}}
    wrapped = {"type": "function", "function": bare}
    for tools in ([bare], bare, json.dumps([bare]), [wrapped]):
        row, _ = fixed({"messages": [U, A], "tools": tools})
        assert row["tools"] == [wrapped]


def test_a_logged_request_keeps_its_question_last() -> None:
    row = {"input": {"messages": [{"role": "human", "content": "a"}]}, "output": "b"}
    assert fixed(row)[0] == {
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "output": "b",
    }


@pytest.mark.parametrize(
    "data", [b'\xef\xbb\xbf{"a":1}', b'  {"a":1} \t', b'{"a":1}\r', b'{"a":1},', b'{"a":1}']
)
def test_bytes_around_a_row_are_removed(data: bytes) -> None:
    told: list[str] = []
    assert repaired_bytes(data, told.append) == b'{"a":1}'
    assert bool(told) is (data != b'{"a":1}')


def run(folder: Path, content: bytes, **how: Any) -> Any:
    (folder / "in.jsonl").write_bytes(content)
    places = Places(folder / "in.jsonl", folder / "out.jsonl", force=True)
    return repair(DataSection(), places, lambda *_: None, **how)


broken = st.builds(
    lambda a, b, role, tail: json.dumps(
        {"messages": [{"role": role, "content": a}, {"role": "gpt", "content": b}, *tail]}
    ).encode(),
    texts | st.integers() | st.booleans(),
    texts | st.floats(allow_nan=False) | st.none(),
    st.sampled_from(["human", "User", "user", "nobody"]),
    st.lists(st.just({"role": "user", "content": "x"}), max_size=2),
)


@settings(max_examples=60)
@given(
    st.lists(good | bad | broken | st.just(b""), min_size=1, max_size=8),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from(["full", "first"]),
    st.booleans(),
)
def test_what_is_written_passes_and_the_ledger_adds_up(
    rows: list[bytes], end: bytes, rules: str, dedupe: bool
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            report = run(folder, end.join(rows), rules=rules, dedupe=dedupe)
        except DataError:
            assert not (folder / "out.jsonl").exists()
            return
        ledger = report.ledgers[0]
        assert ledger.read == ledger.kept + ledger.num_dropped
        assert ledger.read + ledger.blank_lines >= len([row for row in rows if row.strip()])
        verdict = validate(
            DataSection(), [str(folder / "out.jsonl")], lambda *_: None, rules=rules
        )[0]
        assert verdict.is_valid, verdict.findings
        assert verdict.rows == ledger.kept
        told = json.loads((folder / "out.jsonl.ledger.json").read_text(encoding="utf-8"))
        assert told["read"] == told["kept"] + told["dropped"]


def test_a_good_row_is_written_byte_for_byte(tmp_path: Path) -> None:
    data = b'{ "messages":[{"content":"\\u00e9", "role":"user"},{"role":"assistant","content":"b"}],"n":1.0 }'
    run(tmp_path, data + b"\n")
    assert (tmp_path / "out.jsonl").read_bytes() == data + b"\n"


def test_duplicates_go_only_when_asked(tmp_path: Path) -> None:
    row = json.dumps({"messages": [U, A]}).encode()
    again = json.dumps({"id": 3, "messages": [U, A]}).encode()
    assert run(tmp_path, b"\n".join([row, again])).kept == 2
    report = run(tmp_path, b"\n".join([row, again]), dedupe=True)
    assert report.ledgers[0].dropped["a duplicate of an earlier row"].lines == [2]
