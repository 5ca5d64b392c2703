"""The files at hand, newest first, and what is refused before a script is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hone.errors import DataError
from hone.wizard.dataset import check_dataset, newest

ROW = json.dumps(
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
)


def rows(path: Path, text: str = ROW + "\n", age: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_five_newest(tmp_path: Path) -> None:
    for age in range(7):
        rows(tmp_path / f"deep/{age}/rows{age}.jsonl", age=age)
    rows(tmp_path / "rows.json")
    assert [path.name for path in newest(tmp_path, 5)] == [f"rows{age}.jsonl" for age in range(5)]


def test_what_nobody_trains_on_is_passed_by(tmp_path: Path) -> None:
    rows(tmp_path / ".venv/a.jsonl")
    rows(tmp_path / "node_modules/a.jsonl")
    rows(tmp_path / ".hidden.jsonl")
    rows(tmp_path / "runs/first/events.jsonl")
    rows(tmp_path / "runs/first/run.yaml")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round").symlink_to(tmp_path)
    assert newest(tmp_path, 5) == []


def test_rows_are_counted_as_training_counts_them(tmp_path: Path) -> None:
    file = rows(tmp_path / "rows.jsonl", f"{ROW}\n\n{ROW}\n{ROW}")
    assert check_dataset(file, framework="hone").rows == 3


def test_an_empty_file_is_a_clean_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        check_dataset(rows(tmp_path / "rows.jsonl", "\n"), framework="hone")


def test_bad_rows_are_told_by_line_and_counted(tmp_path: Path) -> None:
    file = rows(tmp_path / "rows.jsonl", f"{ROW}\n" + '{"messages": []}\n' * 5)
    with pytest.raises(DataError) as told:
        check_dataset(file, framework="hone")
    assert told.value.what.startswith("5 error(s):\n  Line 2: ")
    assert told.value.what.endswith("and 2 more")
    assert "hone validate" in (told.value.remedy or "")


@pytest.mark.parametrize(
    ("name", "text", "framework", "why"),
    [
        ("rows.json", ROW, "hone", "only .jsonl"),
        ("missing/../rows.jsonl", "", "hone", "no such file"),
        ("text.jsonl", '{"text": "a"}\n', "hone", "no conversations"),
        ("alpaca.jsonl", '{"instruction": "a", "output": "b"}\n', "art", "ART reads"),
    ],
)
def test_what_a_script_could_not_train_on(
    tmp_path: Path, name: str, text: str, framework: str, why: str
) -> None:
    if text:
        rows(tmp_path / name, text)
    with pytest.raises(DataError, match=why):
        check_dataset(tmp_path / name, framework=framework)


def test_other_shapes_of_conversations_are_fine_for_hone(tmp_path: Path) -> None:
    file = rows(tmp_path / "alpaca.jsonl", '{"instruction": "a", "output": "b"}\n')
    assert check_dataset(file, framework="hone").shape == "alpaca"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder"):
        check_dataset(tmp_path, framework="hone")
