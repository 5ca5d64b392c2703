"""What a typed answer becomes, and what is refused: with a remedy, and no secret repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.errors import HoneError
from hone.wizard import reading
from hone.wizard.answers import Answers
from tests.wizard.complete import EXAMPLE, place


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    return Answers(place(tmp_path, SET_KEY="value"))


@pytest.mark.parametrize("name", ["agent-001", 'it\'s "x" {y}', "émile", "a b", "x" * 200])
def test_names(answers: Answers, name: str) -> None:
    assert reading.folder_name(f"  {name} ", answers).value == name


@pytest.mark.parametrize(
    "name", ["", "  ", ".x", "..", "a/b", "a\\b", "a\nb", "a\0b", "é" * 101, "a\x1bb", "agent@1"]
)
def test_names_that_no_model_can_have(answers: Answers, name: str) -> None:
    with pytest.raises(HoneError):
        reading.folder_name(name, answers)


@pytest.mark.parametrize(
    "key", ["sk-or-v1-0123456789abcdef", "hf_AbCdEfGhIjKl", "gsk_0123abcd", "A" * 65]
)
def test_a_key_itself_is_refused_and_not_repeated(answers: Answers, key: str) -> None:
    with pytest.raises(HoneError) as told:
        reading.variable(key, answers)
    assert key not in str(told.value)


def test_a_variable_that_is_not_set_is_said(answers: Answers) -> None:
    assert reading.variable("SET_KEY", answers).notes == ()
    assert "not set" in reading.variable("UNSET_KEY", answers).notes[0]


@pytest.mark.parametrize("url", ["https://openrouter.ai/api/v1", "http://127.0.0.1:8000/v1/"])
def test_addresses(answers: Answers, url: str) -> None:
    assert reading.address(url, answers).value == url


@pytest.mark.parametrize(
    "url",
    [
        "openrouter.ai",
        "ftp://x/v1",
        "http://",
        "https://u:secret@x/v1",
        "https://x/v1?key=1",
        "https://x y/",
        "http://[::1",
    ],
)
def test_addresses_that_are_none_or_hold_a_secret(answers: Answers, url: str) -> None:
    with pytest.raises(HoneError):
        reading.address(url, answers)


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (EXAMPLE, 1),
        ([EXAMPLE, EXAMPLE], 2),
        ({"messages": EXAMPLE}, 1),
        ([{"messages": EXAMPLE}], 1),
    ],
)
def test_examples(answers: Answers, raw: Any, number: int) -> None:
    taken = reading.conversations(raw, answers)
    assert (taken.value, taken.rows) == ([EXAMPLE] * number, number)


def test_examples_as_json(answers: Answers) -> None:
    import json

    assert reading.conversations(json.dumps([EXAMPLE]), answers).value == [EXAMPLE]
    assert reading.conversations([json.dumps(EXAMPLE), json.dumps(EXAMPLE)], answers).rows == 2


@pytest.mark.parametrize(
    "raw",
    [
        "[", "[]", [], [[]], "3", [3],
        [[{"role": "user", "content": "a"}]],
        [[{"role": "assistant", "content": " "}]],
        [[{"role": "tool", "content": "a"}, EXAMPLE[1]]],
        [[{"role": "assistant", "content": "a", "tool_calls": []}]],
        [[{"role": "assistant", "content": 3}]],
    ],
)  # fmt: skip
def test_examples_that_cannot_be_learned(answers: Answers, raw: Any) -> None:
    with pytest.raises(HoneError):
        reading.conversations(raw, answers)


def test_prompts(answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("one\n\n two\u2028still two\r\n", encoding="utf-8")
    assert reading.prompts("one\n\n two ", answers).value == ["one", "two"]
    assert reading.prompts('["a", "@b"]', answers).value == ["a", "@b"]
    taken = reading.prompts("@asked.txt", answers)
    assert (taken.value, taken.rows) == (f"@{tmp_path}/asked.txt", 2)


@pytest.mark.parametrize("raw", ["", " \n ", [], [" "], [1], "@missing", {"a": 1}, ["\0"]])
def test_prompts_that_are_none(answers: Answers, raw: Any) -> None:
    with pytest.raises(HoneError):
        reading.prompts(raw, answers)


@pytest.mark.parametrize("raw", ["0", "-1", "1.5", "x", "", "٣", "1000001"])
def test_counts_that_are_none(answers: Answers, raw: str) -> None:
    with pytest.raises(HoneError):
        reading.whole("epochs")(raw, answers)


@pytest.mark.parametrize("raw", ["0", "-1", "nan", "inf", "x", "1.1"])
def test_rates_that_are_none(answers: Answers, raw: str) -> None:
    with pytest.raises(HoneError):
        reading.decimal("lr", above=True, most=1, example="2e-4")(raw, answers)


@pytest.mark.parametrize("raw", ["train", "train.txt", "missing/train.py", "folder.py"])
def test_places_where_no_script_goes(answers: Answers, tmp_path: Path, raw: str) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(HoneError):
        reading.script_path(raw, answers)
