"""Which rows are good: as the documents' own scripts say where these are right, and as training can read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hone.data.validation.judge import Judge
from tests.data.rows import A, S, U

CALL = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
SILENT = {"role": "user", "content": ""}
TOOL = {"type": "function", "function": {"name": "f"}}

# Row, and whether it is good by each set of rules; the documents' scripts say the same of them.
AGREED: dict[str, tuple[Any, bool, bool]] = {
    "plain": ({"messages": [U, A]}, True, True),
    "system": ({"messages": [S, U, A]}, True, True),
    "developer": ({"messages": [{"role": "developer", "content": "be"}, U, A]}, True, True),
    "calls": (
        {"messages": [U, CALLING, {"role": "tool", "content": "r"}, A], "tools": [TOOL]},
        True,
        True,
    ),
    "function role": (
        {"messages": [U, CALLING, {"role": "function", "name": "f", "content": "r"}, A]},
        True,
        True,
    ),
    "older call": (
        {"messages": [U, {"role": "assistant", "function_call": CALL["function"]}]},
        True,
        True,
    ),
    "other keys": ({"messages": [U, A], "id": 7, "note": None, "deep": {"a": [1]}}, True, True),
    "metadata": ({"messages": [U, A], "response_format": {"type": "text"}}, True, True),
    "logged": ({"input": {"messages": [U]}, "output": "ho"}, True, True),
    "logged whole": ({"input": {"messages": [U, A]}}, True, True),
    "empty list": ({"messages": []}, False, False),
    "unknown role": ({"messages": [{"role": "bot", "content": "x"}, A]}, False, False),
    "no role": ({"messages": [{"content": "x"}, A]}, False, False),
    "last is user's": ({"messages": [U, A, U]}, False, False),
    "only a question": ({"messages": [U]}, False, False),
    "no messages": ({"x": 1}, False, False),
    "messages null": ({"messages": None}, False, False),
    "says nothing": ({"messages": [SILENT, A]}, False, True),
    "empty reply": ({"messages": [U, {"role": "assistant", "content": ""}]}, False, True),
    "tools as text": ({"messages": [U, A], "tools": json.dumps([TOOL])}, False, True),
}
# What a document's script lets pass, and training cannot use.
STRICTER: dict[str, Any] = {
    "weight 0 everywhere": {"messages": [U, {**A, "weight": 0}]},
    "not to be trained": {"messages": [U, {**A, "train": False}]},
    "content a number": {"messages": [U, {"role": "assistant", "content": 3}]},
    "a call of nothing": {
        "messages": [U, {"role": "assistant", "content": None, "tool_calls": [{}]}, A]
    },
    "a log without reply": {"input": {"messages": [U]}},
}
NOT_ROWS = [b"3", b"null", b"[]", b"[1,2,3]", b'"x"', b"{", b'{"messages": NaN}', b"\xff"]


def judge(row: Any, rules: str) -> Judge:
    shape = "log" if isinstance(row, dict) and "input" in row else "messages"
    return Judge(shape, rules=rules)


def is_good(row: Any, rules: str) -> bool:
    data = json.dumps(row).encode()
    judged = judge(row, rules)
    again = judged.look(data, 1)
    assert judged.look(data, 1) == again, "a second row of the same keys fares like the first"
    return again is None


@pytest.mark.parametrize("name", AGREED)
def test_rows_of_which_all_say_the_same(name: str) -> None:
    row, full, first = AGREED[name]
    assert is_good(row, "full") is full
    assert is_good(row, "first") is first


@pytest.mark.parametrize("name", AGREED)
def test_the_first_document_says_so(name: str, shared: Path, tmp_path: Path) -> None:
    text = (shared / "reference/documents/art_train_sft_wizard.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    row, _, first = AGREED[name]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    script = next(one for one in blocks if "Valid!" in one)
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True)
    assert (done.returncode == 0) is first, done.stdout


@pytest.mark.parametrize("name", AGREED)
def test_the_other_document_says_so(name: str) -> None:
    row, full, _ = AGREED[name]
    assert full is _by_the_other_document(row)


def _by_the_other_document(row: Any) -> bool:
    """Its rules, told anew: in the document the script has lost its indentation."""
    messages = row.get("input", row).get("messages", [])
    roles = {"system", "user", "assistant", "developer", "tool", "function"}
    if not isinstance(messages, list) or not messages:
        return False
    for said in messages:
        if said.get("role") not in roles:
            return False
        if not any(said.get(key) for key in ("content", "function_call", "tool_calls")):
            return False
    if "input" not in row and messages[-1]["role"] != "assistant":
        return False
    return row.get("tools") is None or isinstance(row["tools"], list)


@pytest.mark.parametrize("name", STRICTER)
@pytest.mark.parametrize("rules", ["full", "first"])
def test_a_row_that_training_cannot_use_is_bad_by_all_rules(name: str, rules: str) -> None:
    assert not is_good(STRICTER[name], rules)


@pytest.mark.parametrize("data", NOT_ROWS)
def test_what_is_no_row_is_told_with_a_remedy(data: bytes) -> None:
    finding = Judge("messages").look(data, 4)
    assert finding is not None
    assert finding.line == 4
    assert finding.what
    assert finding.remedy
    assert finding.allowed


def test_space_alone_says_nothing() -> None:
    row = {"messages": [{"role": "user", "content": " \n"}, A]}
    assert not is_good(row, "full")
    assert is_good(row, "first")


def test_a_finding_names_place_found_allowed_and_remedy() -> None:
    row = {"messages": [U, {"role": "gtp", "content": "x"}]}
    finding = Judge("messages").look(json.dumps(row).encode(), 9)
    assert finding is not None
    assert finding.to_json() == {
        "line": 9,
        "pointer": "/messages/1/role",
        "what": "unknown role 'gtp'",
        "found": "the text 'gtp'",
        "allowed": "assistant, developer, system, tool, user",
        "remedy": "allowed: assistant, developer, system, tool, user",
    }


def test_a_key_that_stands_twice_is_found_beside_good_ones() -> None:
    row = b'{"messages": [{"role": "user", "content": "a", "content" : "b"}]}'
    finding = Judge("messages").look(row, 1)
    assert finding is not None
    assert "twice" in finding.what


@pytest.mark.parametrize(
    ("shape", "good", "bad"),
    [
        ("text", {"text": "a"}, {"text": ""}),
        ("tokens", {"input_ids": [1, 2]}, {"input_ids": [1, 2], "labels": [-100, -100]}),
        ("turns", {"user": "a", "assistant": "b"}, {"user": "a", "assistant": 1}),
        ("alpaca", {"instruction": "a", "output": "b"}, {"instruction": "a"}),
    ],
)
def test_other_shapes_by_their_own_rules(shape: str, good: Any, bad: Any) -> None:
    assert Judge(shape).look(json.dumps(good).encode(), 1) is None
    assert Judge(shape).look(json.dumps(bad).encode(), 2) is not None
