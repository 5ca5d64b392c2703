"""Rows of a file as trajectories: the order that a seed names, and what a bad file is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.errors import ConfigError, DataError
from hone.trainable.file import get_file_row_count, iterate_file


def written(path: Path, rows: int) -> Path:
    lines = [
        {"messages": [{"role": "user", "content": str(i)}, {"role": "assistant", "content": "yes"}]}
        for i in range(rows)
    ]
    path.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n")
    return path


def asked(path: Path, *, skip: int = 0, epochs: int = 1, buffer: int = 10_000) -> list[int]:
    rows = iterate_file(path, epochs, buffer, initial_skip=skip)
    return [int(row.messages()[0]["content"]) for row in rows]


@pytest.mark.parametrize("buffer", [1, 2, 5, 100])
def test_each_epoch_has_every_row_and_a_skip_gives_the_exact_rest(
    tmp_path: Path, buffer: int
) -> None:
    path = written(tmp_path / "rows.jsonl", 11)
    whole = asked(path, epochs=3, buffer=buffer)
    for epoch in range(3):
        assert sorted(whole[epoch * 11 : (epoch + 1) * 11]) == list(range(11))
    for skip in range(35):
        assert asked(path, epochs=3, buffer=buffer, skip=skip) == whole[skip:]


def test_epochs_differ_and_a_buffer_of_one_keeps_the_order(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", 30)
    shuffled = asked(path, epochs=2)
    assert shuffled[:30] != shuffled[30:]
    assert asked(path, buffer=1) == list(range(30))


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert get_file_row_count(written(tmp_path / "rows.jsonl", 4)) == 4
    (tmp_path / "empty.jsonl").write_text("\n\n")
    assert get_file_row_count(tmp_path / "empty.jsonl") == 0


def test_a_row_that_cannot_be_used_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", 2)
    path.write_text(path.read_text() + '{"no_messages": 1}\n')
    with pytest.raises(DataError) as caught:
        list(iterate_file(path))
    assert "rows.jsonl:4" in str(caught.value.where)
    path.write_text('{"messages": [\n')
    with pytest.raises(DataError) as caught:
        get_file_row_count(path)
    assert "rows.jsonl:1" in str(caught.value.where)


def test_a_logged_request_brings_its_answer_and_tools(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    row = {
        "input": {"messages": [{"role": "user", "content": "x"}], "tools": [tool]},
        "output": {"message": {"role": "assistant", "content": "y"}},
    }
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (found,) = iterate_file(path)
    assert [message["content"] for message in found.messages()] == ["x", "y"]
    assert found.tools == [tool]


def test_only_jsonl_is_streamed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only \.jsonl"):
        iterate_file(tmp_path / "rows.json")
    with pytest.raises(ConfigError, match="shuffle_buffer_size"):
        iterate_file(tmp_path / "rows.jsonl", shuffle_buffer_size=0)
