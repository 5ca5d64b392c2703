"""Scalars of YAML 1.2 and what they become in a field."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest

from hone.config.kinds import Count, Number
from hone.config.values import Node, fit, plain_scalar, takes_structure, wants_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("nULL", "nULL"), ("None", "None"),
        ("true", True), ("FALSE", False), ("yes", "yes"), ("off", "off"), ("n", "n"),
        ("12", 12), ("-3", -3), ("+3", 3), ("017", 17), ("0o17", 15), ("0xff", 255), ("1_000", "1_000"),
        ("1e-4", 1e-4), ("1.", 1.0), (".5", 0.5), ("-1.5E+3", -1500.0), ("1e", "1e"), (".", "."),
        (".inf", math.inf), ("-.INF", -math.inf),
        ("2024-01-01", "2024-01-01"), ("12:30:45", "12:30:45"), ("0x", "0x"), ("1.2.3", "1.2.3"),
        ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_core_schema(text: str, value: object) -> None:
    read = plain_scalar(text).scalar
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["001", "2024-01-01", "1e5", "true", "0x1F", "12:30", "3.10", ".inf"]
)
def test_a_text_field_takes_what_was_typed(text: str) -> None:
    for annotation in (str, str | None, str | list[str]):
        assert fit(plain_scalar(text), annotation) == text


def test_null_unsets_and_is_never_the_word() -> None:
    assert fit(plain_scalar("null"), str | None) is None
    assert fit(Node("null"), str | None) == "null"


def test_numbers_are_numbers_where_text_is_one_alternative_among_words() -> None:
    assert fit(plain_scalar("1e-4"), Number) == 1e-4
    assert fit(plain_scalar("512"), Count | Literal["auto"]) == 512
    assert fit(plain_scalar("auto"), Count | Literal["auto"]) == "auto"
    assert fit(plain_scalar("true"), Literal["true", "false"]) == "true"


def test_what_lies_inside_takes_the_inner_type() -> None:
    listed = Node(items=[plain_scalar("1"), plain_scalar("true")])
    assert fit(listed, str | list[str]) == ["1", "true"]
    assert fit(listed, Any) == [1, True]
    mapped = Node(entries={"a": plain_scalar("001"), "b": listed})
    assert fit(mapped, dict[str, str]) == {"a": "001", "b": [1, True]}
    assert fit(mapped, dict[str, Any]) == {"a": 1, "b": [1, True]}


def test_kinds() -> None:
    assert wants_text(str | None)
    assert not wants_text(Count | None)
    assert not wants_text(Any)
    assert takes_structure(str | list[str])
    assert takes_structure(Any)
    assert not takes_structure(str | None)
