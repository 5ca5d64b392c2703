"""Strict JSON on its fast road: it refuses and gives back exactly what a parser that keeps every pair does."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hone.data.example import Origin
from hone.data.strict import keeps_keys, parse_row, parse_value
from hone.errors import DataError

TEXTS = st.text(
    st.sampled_from(list('ab":\\ \t\n,{}[]é😀')) | st.characters(exclude_categories=["Cs"]),
    max_size=8,
)
NUMBERS = st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(TEXTS, inner), max_size=3),
    max_leaves=12,
)
GAPS = st.sampled_from(["", " ", "  ", "\t", "\r\n", " \t"])


class Twice(ValueError):
    pass


def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(found)) < len(found):
        raise Twice
    return dict(found)


@st.composite
def documents(draw: Any) -> str:
    """JSON text in which keys may stand twice, with space wherever JSON allows it."""

    def written(value: Any) -> str:
        before, after = draw(GAPS), draw(GAPS)
        if isinstance(value, list) and value and all(isinstance(one, tuple) for one in value):
            inner = ",".join(
                f"{draw(GAPS)}{json.dumps(key, ensure_ascii=draw(st.booleans()))}{draw(GAPS)}:{written(one)}"
                for key, one in value
            )
            return f"{before}{{{inner}}}{after}"
        if isinstance(value, list):
            return f"{before}[{','.join(map(written, value))}]{after}"
        return f"{before}{json.dumps(value, ensure_ascii=draw(st.booleans()))}{after}"

    return written(draw(VALUES))


@settings(max_examples=300, deadline=None)
@given(documents())
@example('{"a":1,"a" :2}')
@example('{"a":1,"a"  :2}')
@example('{"a":1,"a"\t:2}')
@example('{"a\\\\":1,"a\\\\":2}')
@example('{"a\\"":"x\\": y","a\\"":2}')
@example('{"x":": \\\\","x":1}')
def test_it_agrees_with_a_parser_that_keeps_every_pair(text):
    try:
        expected = json.loads(text, object_pairs_hook=pairs)
    except Twice:
        with pytest.raises(DataError, match="stands twice"):
            parse_value(text.encode(), "here")
        return
    found = parse_value(text.encode(), "here")
    assert json.dumps(found) == json.dumps(expected)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_keys_that_differ_and_hold_no_colon_need_no_second_look(keys):
    plain = {key.replace(":", ";"): "x" for key in keys}
    assert keeps_keys(json.dumps(plain).encode(), len(plain))


def test_text_full_of_json_is_no_reason_for_a_second_look():
    row = {"messages": [{"role": "user", "content": json.dumps({"a": {"b": ": c"}})}]}
    assert keeps_keys(json.dumps(row).encode(), 3)
    assert keeps_keys(json.dumps({"a": "said : this"}).encode(), 1)


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**18, 10**30, 123456789012345678])
def test_long_integers_keep_every_digit(number):
    assert parse_value(f'{{"n": [{number}]}}'.encode(), "here") == {"n": [number]}


@pytest.mark.parametrize("text", ["1e400", "-1e400", "NaN", "-Infinity", "1" * 400, "01", "1."])
def test_what_is_no_double_is_refused(text):
    with pytest.raises(DataError):
        parse_value(f'{{"n": {text}}}'.encode(), "here")


def test_large_floats_are_what_they_are():
    found = parse_value(b'{"n": [1e300, 1e18, 1.5e-300]}', "here")["n"]
    assert found == [1e300, 1e18, 1.5e-300]
    assert all(math.isfinite(one) for one in found)


def test_very_many_colons_are_read_all_the_same():
    text = ":" * 20_000
    assert parse_row(json.dumps({"a": text}).encode(), Origin("f", 1)) == {"a": text}
    with pytest.raises(DataError, match="twice"):
        parse_row(f'{{"a": "{text}", "a": 1}}'.encode(), Origin("f", 1))
