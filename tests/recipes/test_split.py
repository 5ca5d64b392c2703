"""Split as a whole: every line in one part and byte for byte, whatever else the file holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.errors import ConfigError, DataError
from hone.recipes.change import Places
from hone.recipes.split import split
from tests.data.mixed_rows import check_sum, line, mixed, rows_of, write

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@given(mixed, st.integers(0, 3))
def test_read_is_kept_and_dropped(tmp_path_factory, lines, seed) -> None:
    folder = tmp_path_factory.mktemp("split")
    source = write(folder / "rows.jsonl", lines)
    places = Places(source, folder / "parts")
    try:
        told = split(places, SHARES, seed=seed).to_json()
    except DataError:
        assert [one.name for one in folder.iterdir()] == ["rows.jsonl"]
        return
    check_sum(told, lines=lines)
    parts = [lines_of(folder / "parts" / f"{part}.jsonl") for part in SHARES]
    assert all(parts)
    dropped = {n for one in told["files"][0]["dropped"].values() for n in one["lines"]}
    kept = [one + b"\n" for n, one in enumerate(lines, 1) if n not in dropped]
    kept = [one for one in kept if one.strip()]
    assert sorted(one for part in parts for one in part) == sorted(kept)
    assert len({one for part in parts for one in set(part)}) == sum(len(set(p)) for p in parts)
    assert rows_of(lines) == told["read"]


def rows(count: int) -> list[bytes]:
    return [line({"user": f"q{n}", "assistant": "a", "who": n % 10}) for n in range(count)]


def part_of(folder: Path) -> dict[bytes, str]:
    return {one: path.stem for path in folder.iterdir() for one in lines_of(path) if path.is_file()}


def test_stable_under_added_rows_and_another_order(tmp_path: Path) -> None:
    some, more = rows(120), rows(200)
    split(Places(write(tmp_path / "a.jsonl", some), tmp_path / "a"), SHARES)
    split(Places(write(tmp_path / "b.jsonl", more[::-1]), tmp_path / "b"), SHARES)
    before, after = part_of(tmp_path / "a"), part_of(tmp_path / "b")
    assert len(before) == 120
    assert before.items() <= after.items()


def test_bytes_and_order_are_kept(tmp_path: Path) -> None:
    odd = [b'  {"user":"q%d" ,"assistant": "\\u00e9\xe2\x80\xa8"}\r' % n for n in range(50)]
    split(Places(write(tmp_path / "a.jsonl", odd), tmp_path / "a"), SHARES)
    every = [one + b"\n" for one in odd]
    for part in SHARES:
        found = (tmp_path / "a" / f"{part}.jsonl").read_bytes().split(b"\n")[:-1]
        assert [one + b"\n" for one in found] == [one for one in every if one[:-1] in found]


def test_groups(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [*rows(200), line({"user": "x", "assistant": "y"})])
    told = split(Places(source, tmp_path / "a"), SHARES, group_by="who")
    sides: dict[int, set[str]] = {}
    for one, part in part_of(tmp_path / "a").items():
        sides.setdefault(json.loads(one).get("who"), set()).add(part)
    assert all(len(parts) == 1 for parts in sides.values())
    assert [one.lines for one in told.ledgers[0].noted.values()] == [[201]]
    with pytest.raises(ConfigError, match="no row has a column 'whom'"):
        split(Places(source, tmp_path / "b"), SHARES, group_by="whom")


def test_a_list_stays_a_list(tmp_path: Path) -> None:
    source = tmp_path / "a.json"
    source.write_bytes(b"[" + b", ".join(rows(30)) + b", 3]")
    report = split(Places(source, tmp_path / "a"), SHARES)
    assert report.ledgers[0].num_dropped == 1
    found = [
        one for part in SHARES for one in json.loads((tmp_path / "a" / f"{part}.json").read_text())
    ]
    assert len(found) == 30


def test_small_files(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", rows(3))
    report = split(
        Places(source, tmp_path / "a"), {"train": 0.998, "val": 0.001, "test": 0.001}, seed=1
    )
    assert sorted(report.written.values()) == [1, 1, 1]
    assert report.notices == ["moved so that no part is empty: 2 of 3 rows"]
    with pytest.raises(DataError, match="2 distinct rows cannot fill 3 parts"):
        split(Places(write(tmp_path / "b.jsonl", rows(2) * 4), tmp_path / "b"), SHARES)
    assert not (tmp_path / "b").exists()


def test_a_part_of_an_earlier_split_is_not_left_among_new_ones(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", rows(20))
    split(Places(source, tmp_path / "a"), SHARES)
    with pytest.raises(ConfigError, match="exists already"):
        split(Places(source, tmp_path / "a"), SHARES)
    with pytest.raises(ConfigError, match="part of other rows"):
        split(Places(source, tmp_path / "a", force=True), {"train": 0.5, "val": 0.5})
    assert split(Places(source, tmp_path / "a", force=True), SHARES).kept == 20
