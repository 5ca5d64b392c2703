"""Values as Python source: they read back to the very value, whatever stands in them."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.wizard.literal import laid_out, literal, number

plain = st.recursive(
    st.text()
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
HARD = "'\"\\{}\n\r\t\0 '''\"\"\" \u2028\x85é漢字👩‍👧 #{x}%s$\\n\\"


@given(plain)
def test_a_literal_reads_back(value: Any) -> None:
    assert ast.literal_eval(literal(value)) == value
    assert "\n" not in literal(value)


@given(plain, st.integers(0, 5))
def test_so_does_one_over_several_lines(value: Any, indent: int) -> None:
    assert ast.literal_eval(laid_out(value, indent=indent)) == value


@given(st.text(alphabet=HARD))
def test_quotes_braces_and_backslashes(value: str) -> None:
    assert ast.literal_eval(literal(value)) == value


def test_a_path_that_is_no_utf8_reads_back() -> None:
    name = b"/rows/caf\xe9.jsonl".decode(errors="surrogateescape")
    text = literal(name)
    assert text.isascii()
    assert ast.literal_eval(text) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-4, "2e-4"),
        (1e-5, "1e-5"),
        (0.0072, "0.0072"),
        (2.0, "2.0"),
        (0.04, "0.04"),
        (0.0, "0.0"),
        (1.5e-4, "1.5e-4"),
    ],
)
def test_numbers_are_written_as_people_do(value: float, text: str) -> None:
    assert number(value) == text
    assert float(text) == value


@given(st.floats(min_value=0, max_value=1))
def test_no_number_loses_a_digit(value: float) -> None:
    assert float(number(value)) == value
