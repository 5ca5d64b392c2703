"""Process as a whole: which file is read, that parts stay parts, and that every row is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from hone.data.formats import RowFormat
from hone.data.plain_rows import Tidying
from hone.data.reader import RowReader
from hone.errors import ConfigError, DataError
from hone.recipes.change import Places
from hone.recipes.process import process
from tests.data.mixed_rows import check_sum, line, mixed, write

ROWS = [line({"user": f"q{n}", "assistant": "a"}) for n in range(5)]


def asked(path: Path) -> list[str]:
    form = RowFormat("messages")
    return [form.read(row).messages[-2].content for row in RowReader(path)]


def parts(folder: Path) -> dict[str, list[str]]:
    return {one.stem: asked(one) for one in sorted(folder.iterdir())}


@given(mixed)
def test_read_is_kept_and_dropped(tmp_path_factory, lines) -> None:
    folder = tmp_path_factory.mktemp("process")
    write(folder / "raw" / "raw.jsonl", lines)
    try:
        report = process(Places(folder / "raw", folder / "out"))
    except DataError:
        assert [one.name for one in folder.iterdir()] == ["raw"]
        return
    check_sum(report.to_json(), lines=lines)
    found = parts(folder / "out")
    assert all(found.values())
    assert sum(map(len, found.values())) == report.kept


@pytest.mark.parametrize("name", ["raw.json", "raw.jsonl", "sample.jsonl", "mine.jsonl"])
def test_a_single_file_is_split(tmp_path: Path, name: str) -> None:
    raw = tmp_path / "raw" / name
    raw.parent.mkdir()
    if name == "raw.json":
        raw.write_bytes(b'{"data": [' + b",".join(ROWS) + b"]}")
    else:
        write(raw, ROWS)
    process(Places(tmp_path / "raw", tmp_path / "out"))
    found = parts(tmp_path / "out")
    assert set(found) == {"train", "val", "test"}
    assert sorted(one for part in found.values() for one in part) == [f"q{n}" for n in range(5)]
    assert all(found.values())


def test_raw_comes_before_sample_and_what_is_not_read_is_told(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "sample.jsonl", ROWS[:3])
    write(tmp_path / "raw" / "raw.jsonl", ROWS)
    report = process(Places(tmp_path / "raw", tmp_path / "out"), shares={"train": 1.0})
    assert report.kept == 5
    assert f"not read: {tmp_path}/raw/sample.jsonl" in report.notices


def test_files_that_are_split_stay_so(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "train.jsonl", ROWS[:3])
    write(tmp_path / "raw" / "valid.jsonl", ROWS[2:4])
    report = process(Places(tmp_path / "raw", tmp_path / "out"))
    assert parts(tmp_path / "out") == {"train": ["q0", "q1", "q2"], "val": ["q2", "q3"]}
    assert "1 rows of val are also rows of train" in report.notices
    assert "no test file was given, so none is written" in report.notices
    with pytest.raises(ConfigError, match="split already"):
        process(Places(tmp_path / "raw", tmp_path / "o"), shares={"train": 1.0})


def test_a_part_that_would_be_empty_is_no_silent_part(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "train.jsonl", ROWS)
    write(tmp_path / "raw" / "val.jsonl", [b"{}"])
    with pytest.raises(DataError, match="'val' is left"):
        process(Places(tmp_path / "raw", tmp_path / "out"))
    write(tmp_path / "two" / "raw.jsonl", ROWS[:2])
    with pytest.raises(DataError, match="cannot fill 3 parts"):
        process(Places(tmp_path / "two", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_which_file_is_asked(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / "raw" / name, ROWS)
    places = Places(tmp_path / "raw", tmp_path / "out")
    with pytest.raises(DataError, match=r"which file\? found a.jsonl, b.jsonl"):
        process(places)
    with pytest.raises(DataError, match="no such folder"):
        process(Places(tmp_path / "absent", tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file of rows"):
        process(Places(tmp_path / "empty", tmp_path / "out"))
    for name in ("val.jsonl", "validation.json", "train.jsonl"):
        write(tmp_path / "twice" / name, ROWS)
    with pytest.raises(DataError, match="two files for the part 'val'"):
        process(Places(tmp_path / "twice", tmp_path / "out"))
    (tmp_path / "table").mkdir()
    rows = "".join(f"q{n},a{n}\n" for n in range(9))
    (tmp_path / "table" / "raw.csv").write_text(f"question,answer\n{rows}")
    report = process(Places(tmp_path / "table", tmp_path / "of a table"))
    assert report.ledgers[0].read == report.ledgers[0].kept == 9


def test_in_place_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "raw.jsonl", ROWS)
    for source in (tmp_path / "raw", tmp_path / "raw" / "raw.jsonl"):
        with pytest.raises(ConfigError, match="in place"):
            process(Places(source, tmp_path / "raw", force=True))


def test_documented_rows(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}] * 2
    rows = [
        line({"system": "You are a helpful assistant.", "user": "What?", "assistant": "That."}),
        line({"system": "s", "conversations": turns}),
        line(["q", {"answer": "a"}]),
        line({"instruction": "i", "input": "x", "output": "o"}),
    ]
    write(tmp_path / "raw" / "train.jsonl", rows)
    report = process(Places(tmp_path / "raw", tmp_path / "out"), tidying=Tidying(max_characters=3))
    found = [json.loads(one)["messages"] for one in (tmp_path / "out" / "train.jsonl").open()]
    assert [len(one) for one in found] == [3, 5, 3, 3]
    assert found[0][1]["content"] == "Wha"
    assert found[2][0]["content"] == "You are a helpful domain assistant."
    repaired = {reason: one.lines for reason, one in report.ledgers[0].repaired.items()}
    assert repaired == {
        "a text of the user was cut to 3 characters": [1],
        "a text of the assistant was cut to 3 characters": [1],
        "the default system text was added": [3, 4],
        "columns taken for question and answer: instruction and input and output": [4],
    }
