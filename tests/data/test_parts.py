"""Parts: chosen by content and nothing else, together where they belong together, never empty."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hone.data.parts import RowKey, assign, check_shares, read_shares, row_key
from hone.errors import ConfigError, DataError

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
names = st.binary(min_size=1, max_size=2)
plain = st.lists(st.builds(RowKey, names), min_size=3, max_size=60).filter(
    lambda rows: len(set(rows)) >= 3
)
grouped = st.lists(st.builds(RowKey, names, st.none() | names), min_size=1, max_size=60)


def keys(count: int) -> list[RowKey]:
    return [RowKey(str(number).encode()) for number in range(count)]


@given(plain, st.integers(0, 5))
def test_no_part_is_empty_and_equal_rows_stay_together(rows, seed) -> None:
    parts = assign(rows, SHARES, seed=seed).parts
    assert set(parts) == set(SHARES)
    assert len({(row, part) for row, part in zip(rows, parts, strict=True)}) == len(set(rows))


@given(grouped)
def test_groups_and_equal_rows_stay_together(rows) -> None:
    try:
        parts = assign(rows, {"train": 0.5, "val": 0.5}, seed=0).parts
    except DataError:
        return
    for get in (lambda row: row.content, lambda row: row.group):
        sides: dict[bytes, set[str]] = {}
        for row, part in zip(rows, parts, strict=True):
            if get(row) is not None:
                sides.setdefault(get(row), set()).add(part)
        assert all(len(side) == 1 for side in sides.values())


@given(st.permutations(range(300)), st.integers(50, 300))
def test_stable_under_added_and_reordered_rows(order, count) -> None:
    every = keys(300)
    before = dict(zip(every, assign(every, SHARES, seed=0).parts, strict=True))
    some = [every[number] for number in order[:count]]
    found = assign(some, SHARES, seed=0)
    assume(found.moved == 0)  # of few rows a part may be empty
    assert all(before[row] == part for row, part in zip(some, found.parts, strict=True))


def test_the_row_nearest_to_the_border_moves() -> None:
    rows = keys(4)
    found = assign(rows, {"train": 0.98, "val": 0.01, "test": 0.01}, seed=0)
    assert sorted(found.parts) == ["test", "train", "train", "val"]
    assert found.moved == 2
    wide = assign(rows, {"train": 0.5, "val": 0.5}, seed=0)
    assert wide.moved == 0


def test_shares_are_met_about() -> None:
    parts = assign(keys(5000), SHARES, seed=3).parts
    assert parts.count("train") / 5000 == pytest.approx(0.7, abs=0.03)
    assert parts.count("val") / 5000 == pytest.approx(0.1, abs=0.02)


def test_another_seed_is_another_split() -> None:
    rows = keys(50)
    assert assign(rows, SHARES, seed=0).parts != assign(rows, SHARES, seed=1).parts


def test_too_few_distinct_rows() -> None:
    with pytest.raises(DataError, match="2 distinct rows cannot fill 3"):
        assign([*keys(2), *keys(2)], SHARES, seed=0)
    with pytest.raises(DataError, match="1 distinct groups"):
        assign([RowKey(b"a", b"g"), RowKey(b"b", b"g")], {"train": 0.5, "val": 0.5}, seed=0)


def test_rows_that_say_the_same_have_one_key() -> None:
    one = row_key({"user": "a", "assistant": "b", "id": 1})
    assert one == row_key({"id": 2, "assistant": "b", "user": "a"})
    assert one == row_key({"prompt": "a", "completion": "b"})
    assert one != row_key({"user": "a", "assistant": "c", "id": 1})
    assert row_key({"x": 1, "y": 2}) == row_key({"y": 2, "x": 1}) != row_key({"y": 2, "x": "1"})
    assert row_key({"pair": ["q", "a"]}) != row_key({"pair": ["q", "b"]})


def test_ratios() -> None:
    assert read_shares("0.9/0.05/0.05") == {"train": 0.9, "val": 0.05, "test": 0.05}
    assert read_shares("0.8/0/0.2") == {"train": 0.8, "test": 0.2}
    assert read_shares("1") == {"train": 1.0}
    for wrong in ("0.9/0.2", "a/b", "0.5", "1/0/0/0", "-0.5/1.5", "nan/1", "9/1", ""):
        with pytest.raises(ConfigError):
            read_shares(wrong)
    with pytest.raises(ConfigError, match=r"together 0\.9"):
        check_shares({"train": 0.9})
