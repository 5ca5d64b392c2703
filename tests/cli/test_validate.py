"""`hone validate` as a user sees it: what it prints, its exit code, its JSON, and faulty files of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.cli.main import run
from tests.data.rows import A, S, U

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "r"}
GOOD = json.dumps({"messages": [U, A]}, ensure_ascii=False).encode()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


def lines(*rows: bytes) -> None:
    Path("rows.jsonl").write_bytes(b"".join(row + b"\n" for row in rows))


def messages(*said: Any, **more: Any) -> bytes:
    return json.dumps({"messages": [*said], **more}).encode()


def test_a_good_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines(GOOD, b"", GOOD)
    assert run(["validate", "rows.jsonl"]) == 0
    assert capsys.readouterr() == ("Valid! 2 rows\n", "")


def test_every_error_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines(GOOD, b"{", b"", messages({**U, "role": "bot"}, A))
    assert run(["validate", "rows.jsonl"]) == 3
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "2 error(s):"
    assert told[1].startswith("  Line 2: the JSON ends too early")
    assert told[2] == (
        "  Line 4: unknown role 'bot' at /messages/0/role; found the text 'bot'; did you mean "
        "'assistant'? allowed: system, developer, user, assistant, tool"
    )
    assert len(told) == 3


def test_many_errors_are_cut_short_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    lines(*[b"3"] * 130)
    assert run(["validate", "rows.jsonl"]) == 3
    told = capsys.readouterr().out.splitlines()
    assert (told[0], len(told)) == ("130 error(s):", 102)
    assert told[-1] == "  and 30 more; --all prints every one"
    run(["validate", "rows.jsonl", "--all"])
    assert len(capsys.readouterr().out.splitlines()) == 131


def test_json_says_it_all(capsys: pytest.CaptureFixture[str]) -> None:
    lines(GOOD)
    assert run(["validate", "rows.jsonl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "valid": True,
        "file": "rows.jsonl",
        "shape": "messages",
        "rows": 1,
        "blank_lines": 0,
        "num_errors": 0,
        "errors": [],
    }
    lines(*[b"3"] * 130)
    assert run(["validate", "rows.jsonl", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["valid"], len(told["errors"])) == (False, 130)
    assert [*told["errors"][0]] == ["line", "pointer", "what", "found", "allowed", "remedy"]
    assert all(isinstance(one["line"], int) and one["remedy"] for one in told["errors"])


def test_several_files_each_have_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    lines(GOOD)
    assert run(["validate", "rows.jsonl", "absent.jsonl"]) == 3
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["rows.jsonl: Valid! 1 rows", "absent.jsonl: 1 error(s):"]
    assert told[2].startswith("  File: no such file")


def test_tables_are_taken_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.csv").write_text("user,assistant\nq,a\nq,001\n", encoding="utf-8")
    assert run(["validate", "rows.csv"]) == 0
    told = capsys.readouterr()
    assert told.out == "Valid! 2 rows\n"
    assert "2 rows imported" in told.err


def test_rules_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    lines(messages({**U, "content": ""}, A))
    assert run(["validate", "rows.jsonl"]) == 3
    assert run(["validate", "rows.jsonl", "--rules", "first"]) == 0
    assert run(["validate", "rows.jsonl", "--rules", "frist"]) == 2
    assert "allowed: first, full" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["rows.jsonl", "--against", "rows.jsonl"],
        ["rows.jsonl", "--dedupe"],
        ["rows.jsonl", "--report", "--fix", "out.jsonl"],
        ["rows.jsonl", "rows.jsonl", "--report"],
        ["rows.jsonl", "--report", "--max-length", "5"],
        ["rows.jsonl", "train.epochs=3"],
        ["rows.jsonl", "--fix", "rows.jsonl"],
        ["rows.jsonl", "--fix", "rows.jsonl", "--force"],
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str]) -> None:
    lines(GOOD)
    assert run(["validate", *words]) == 2
    assert Path("rows.jsonl").read_bytes() == GOOD + b"\n"


def test_fix_writes_beside_and_what_it_writes_passes(capsys: pytest.CaptureFixture[str]) -> None:
    lines(
        GOOD, b"{", messages({"role": "human", "content": "q"}, {"role": "gpt", "content": 7}), GOOD
    )
    assert run(["validate", "rows.jsonl", "--fix", "out.jsonl", "--dedupe", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["read"], told["kept"], told["dropped"]) == (4, 2, 2)
    assert {"the role 'human' was named 'user'", "the role 'gpt' was named 'assistant'"} < {
        *told["files"][0]["repaired"]
    }
    assert run(["validate", "out.jsonl"]) == 0
    assert capsys.readouterr().out == "Valid! 2 rows\n"
    assert run(["validate", "rows.jsonl", "--fix", "out.jsonl"]) == 2


def test_the_report_tells_what_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    odd = messages(U, {**A, "content": "a\u200bb"})
    lines(GOOD, GOOD, odd, messages(U, CALLING, A), b"{")
    assert run(["validate", "rows.jsonl", "--report", "--against", "rows.jsonl"]) == 3
    shown = capsys.readouterr().out
    for text in ("1 error(s):", "exactly what an earlier one says", "without width", "no result"):
        assert text in " ".join(shown.split()), text
    assert run(["validate", "rows.jsonl", "--report", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    codes = {one["code"]: one["lines"] for one in told["report"]["findings"]}
    assert codes["duplicate"] == [2]
    assert codes["unicode-zero-width"] == [3]
    assert codes["call-without-result"] == [4]
    assert told["report"]["shapes"] == {"messages": 4, "unusable row": 1}
    assert told["report"]["unit"] == "characters"


def test_the_report_counts_a_models_tokens(
    shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = messages(U, {**A, "content": "word " * 60})
    lines(GOOD, long, messages({**U, "content": "<|im_end|>"}, A))
    model = str(shared / "tokenizers" / "qwen2.5")
    words = ["validate", "rows.jsonl", "--report", "--model", model, "--max-length", "40", "--json"]
    assert run(words) == 0
    told = json.loads(capsys.readouterr().out)["report"]
    codes = {one["code"]: one["lines"] for one in told["findings"]}
    assert (codes["too-long"], codes["loses-trained"], codes["control-text"]) == ([2], [2], [3])
    assert told["unit"] == "tokens"
    assert 0 < told["lost_to_limit"] < told["trained"] < told["total"]


DEEP = b'{"messages": ' + b"[" * 70 + b"]" * 70 + b"}"
BAD_LINES = {
    "cut off": GOOD[:-9],
    "not UTF-8": GOOD.replace(b"hi", b"\xff"),
    "overlong": GOOD.replace(b"hi", b"\xc0\xaf"),
    "Latin-1": GOOD.replace(b"hi", "é".encode("latin-1")),
    "surrogate bytes": GOOD.replace(b"hi", b"\xed\xa0\x80"),
    "lone surrogate": GOOD.replace(b"hi", b"\\ud800"),
    "raw NUL": GOOD.replace(b"hi", b"\x00"),
    "lone CR inside": GOOD.replace(b"hi", b"\r"),
    "empty reply": messages(U, {**A, "content": ""}),
    "weight 0 everywhere": messages(U, {**A, "weight": 0}),
    "masked": messages(U, A, loss_mask=[False, False]),
    "unknown role": messages({**U, "role": "robot"}, A),
    "null messages": b'{"messages": null}',
    "number as text": messages(U, {**A, "content": 3}),
    "wrong type": messages(U, [A]),
    "NaN": GOOD[:-1] + b', "x": NaN}',
    "beyond a double": GOOD[:-1] + b', "x": 1e400}',
    "deep": DEEP,
    "duplicate key": GOOD[:-1] + b', "messages": []}',
    "another shape": b'{"user": "a", "assistant": "b"}',
    "a picture": GOOD[:-1] + b', "image": "x.png"}',
}
GOOD_LINES = {
    "CRLF": GOOD + b"\r",
    "U+2028": GOOD.replace(b"hi", "a\u2028b".encode()),
    "zero-width": GOOD.replace(b"hi", "\u200b.".encode()),
    "turned": GOOD.replace(b"hi", "\u202e.".encode()),
    "escaped NUL": GOOD.replace(b"hi", b"\\u0000."),
    "huge integer": GOOD[:-1] + b', "x": ' + b"9" * 40 + b"}",
    "extra keys": GOOD[:-1] + b', "x": {"y": [1.5]}}',
    "assistant first": messages(A, U, A),
    "consecutive": messages(U, A, A),
    "no user": messages(A),
    "system in the middle": messages(U, A, S, U, A),
    "result without call": messages(U, RESULT, A),
    "call without result": messages(U, CALLING),
    "ids twice": messages(U, CALLING, RESULT, CALLING, RESULT, A),
    "date": messages(U, {**A, "content": "2024-01-01"}),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_and_the_others_are_not(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(GOOD, BAD_LINES[name], GOOD)
    assert run(["validate", "rows.jsonl"]) == 3
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "1 error(s):"
    assert told[1].startswith("  Line 2: ")


@pytest.mark.parametrize("name", GOOD_LINES)
def test_a_strange_line_that_can_be_learned_is_good(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(GOOD, GOOD_LINES[name], GOOD)
    assert run(["validate", "rows.jsonl"]) == 0, capsys.readouterr().out


def test_a_last_line_without_a_line_feed_counts(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD)
    assert run(["validate", "rows.jsonl"]) == 0
    assert capsys.readouterr().out == "Valid! 2 rows\n"


@pytest.mark.parametrize("content", [b"", b"\n \n", GOOD.decode().encode("utf-16")])
def test_a_file_that_holds_no_rows_is_an_error(
    content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rows.jsonl").write_bytes(content)
    assert run(["validate", "rows.jsonl"]) == 3
    assert capsys.readouterr().out.startswith("1 error(s):\n  File: ")
