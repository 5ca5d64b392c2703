"""The toy task: its rows are right, differ between parts, and come out alike for one seed."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest

from hone.recipes.town import MONTHS, PEOPLE, THINGS
from hone.recipes.toy import EXAMPLE, Rows, file_text, toy_rows


@pytest.fixture(scope="module", params=[0, 1, 2])
def rows(request: pytest.FixtureRequest) -> Rows:
    return toy_rows(train=3000, validation=60, test=100, seed=request.param)


def test_no_pair_and_no_note_of_the_held_out_rows_is_trained(rows: Rows) -> None:
    held_out = [*rows.validation, *rows.test]
    assert not {row.pair for row in rows.train} & {row.pair for row in held_out}
    every = [row.note for row in (*rows.train, *held_out)]
    assert len(set(every)) == len(every)
    assert len(rows.train) == 3000
    assert len(held_out) == 160


def test_each_person_and_thing_is_trained_so_only_the_pairing_is_new(rows: Rows) -> None:
    assert {row.pair[0] for row in rows.train} == set(PEOPLE)
    assert {row.pair[1] for row in rows.train} == set(THINGS)


def test_a_line_says_what_its_note_says(rows: Rows) -> None:
    months = "|".join(MONTHS)
    for row in rows.train:
        day = re.search(rf"({months}) (\d+), (\d{{4}})", row.note)
        hour = re.search(r"\b(\d+)(?::(\d\d))? (am|pm)\b", row.note)
        assert day is not None
        assert hour is not None
        date = dt.date(int(day[3]), MONTHS.index(day[1]) + 1, int(day[2]))
        past_noon = int(hour[1]) % 12 + (12 if hour[3] == "pm" else 0)
        time = dt.time(past_noon, int(hour[2] or 0))
        who, what = row.pair
        assert row.line == f"{date.isoformat()} {time:%H:%M} | {who} | {what}"
        assert who in row.note
        assert what in row.note


def test_a_seed_names_its_rows() -> None:
    one, same, other = (toy_rows(train=50, validation=5, test=5, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_file_holds_one_object_a_line(rows: Rows) -> None:
    lines = file_text(rows.test).split("\n")
    assert lines.pop() == ""
    first = json.loads(lines[0])
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]
    assert first["messages"][0]["content"] == rows.test[0].note
    assert len(lines) == len(rows.test)


def test_the_example_to_type_is_of_the_tasks_own_form(rows: Rows) -> None:
    forms = {re.sub(r"\d+", "0", row.note.split()[0]) for row in rows.train}
    assert EXAMPLE.split()[0] in forms
