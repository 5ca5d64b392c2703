"""Convert as a whole: every row accounted for, columns beside the conversation kept, nothing half written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.config.sections import DataSection
from hone.data.shape_writers import WRITERS
from hone.errors import ConfigError, DataError
from hone.recipes.change import Places
from hone.recipes.convert import convert
from tests.data.mixed_rows import check_sum, line, mixed, write


def run(folder: Path, lines: list[bytes], *, to: str, out: str = "out.jsonl", **how):
    source = write(folder / "rows.jsonl", lines)
    section = DataSection(columns=how.pop("columns", {}))
    report = convert(section, Places(source, folder / out, force=True), to=to, **how)
    text = (folder / out).read_text()
    return report, json.loads(text) if out.endswith(".json") else [
        json.loads(row) for row in text.split("\n")[:-1]
    ]


@given(mixed, st.sampled_from(sorted(WRITERS)), st.booleans())
def test_read_is_kept_and_dropped(tmp_path_factory, lines, to, lossy) -> None:
    folder = tmp_path_factory.mktemp("convert")
    try:
        report, rows = run(folder, lines, to=to, lossy=lossy)
    except DataError:
        assert not list(folder.glob("out*"))
        return
    check_sum(report.to_json(), lines=lines)
    assert report.kept == len(rows)
    assert json.loads((folder / "out.jsonl.ledger.json").read_text()) == report.to_json()


def test_columns_beside_go_along_and_back(tmp_path: Path) -> None:
    lines = [line({"id": 7, "question": "a", "answer": "b", "level": {"x": [1]}})]
    columns = {"user": "question", "assistant": "answer"}
    report, rows = run(tmp_path, lines, to="messages", out="out.json", columns=columns)
    assert rows[0].items() >= {"id": 7, "level": {"x": [1]}}.items()
    assert "question" not in rows[0]
    assert report.ledgers[0].shapes == {"turns": 1}
    _, again = run(tmp_path, [line(rows[0])], to="turns")
    assert again == [{"user": "a", "assistant": "b", "id": 7, "level": {"x": [1]}}]


def test_a_column_that_would_be_misread_is_no_column_beside(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    lines = [line({"messages": said, "instruction": "old"}), line({"messages": said})]
    report, rows = run(tmp_path, lines, to="turns")
    assert rows == [{"user": "a", "assistant": "b"}]
    assert [one.lines for one in report.ledgers[0].dropped.values()] == [[1]]
    report, rows = run(tmp_path, lines, to="turns", lossy=True)
    assert rows == [{"user": "a", "assistant": "b"}] * 2
    assert "left out: the column 'instruction'" in report.ledgers[0].repaired


def test_reasons_name_their_lines(tmp_path: Path) -> None:
    good = {"user": "a", "assistant": "b"}
    lines = [line(good), b"{", line({"user": 1, "assistant": "b"}), b"", b"[]", line(good)]
    report, _ = run(tmp_path, lines, to="messages")
    told = {reason: one.lines for reason, one in report.ledgers[0].dropped.items()}
    assert told == {"not a row of JSON": [2, 5], "text is wanted": [3]}
    example = report.ledgers[0].dropped["text is wanted"].example
    assert "rows.jsonl:3 /user" in example
    assert "the number 1" in example
    assert report.ledgers[0].blank_lines == 1


def test_keys_of_messages_that_nothing_reads_are_counted(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": None, "refusal": "no", "annotations": []}
    report, rows = run(
        tmp_path, [line({"messages": [{"role": "user", "content": "a"}, answer]})], to="messages"
    )
    assert rows[0]["messages"][1] == {"role": "assistant", "content": "no"}
    assert set(report.ledgers[0].repaired) == {
        "the content is null and the refusal was taken for it",
        "left out: the key 'annotations' of a message",
    }


def test_refused_before_anything_is_written(tmp_path: Path) -> None:
    lines = [line({"user": "a", "assistant": "b"})]
    source = write(tmp_path / "rows.jsonl", lines)
    for out, to, said in (
        ("rows.jsonl", "messages", "in place"),
        ("out.txt", "messages", "jsonl"),
        ("out.jsonl", "mesages", "mesages"),
    ):
        with pytest.raises(ConfigError, match=said):
            convert(DataSection(), Places(source, tmp_path / out, force=True), to=to)
    with pytest.raises(DataError, match="no row is left"):
        convert(DataSection(), Places(source, tmp_path / "out.jsonl"), to="text")
    with pytest.raises(ConfigError, match=r"'usr' is not a column"):
        convert(
            DataSection(columns={"usr": "user"}),
            Places(source, tmp_path / "out.jsonl"),
            to="messages",
        )
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]
    assert source.read_bytes() == lines[0] + b"\n"


def test_a_ledger_that_stands_there_is_not_replaced(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", [line({"user": "a", "assistant": "b"})])
    (tmp_path / "out.jsonl.ledger.json").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        convert(DataSection(), Places(source, tmp_path / "out.jsonl"), to="messages")
    assert not (tmp_path / "out.jsonl").exists()
    places = Places(source, tmp_path / "out.jsonl", ledger=tmp_path / "l.json")
    assert convert(DataSection(), places, to="messages").ledger_file == str(tmp_path / "l.json")


def test_real_agent_rows(tmp_path: Path, shared: Path) -> None:
    source = shared / "data" / "tau_airline.jsonl"
    report = convert(DataSection(), Places(source, tmp_path / "a.jsonl"), to="sharegpt")
    assert report.ledgers[0].read == 200
    assert set(report.ledgers[0].dropped) == {
        "the shape 'sharegpt' cannot say text beside a tool call"
    }
    every = convert(DataSection(), Places(source, tmp_path / "b.jsonl"), to="prompt-completion")
    assert every.kept == 200
    back = convert(DataSection(), Places(tmp_path / "b.jsonl", tmp_path / "c.jsonl"), to="messages")
    assert back.kept == 200
