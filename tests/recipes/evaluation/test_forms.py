"""Answers that are to be JSON, and schemas that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ConfigError
from hone.recipes.evaluation import forms
from hone.recipes.evaluation.measure import Measure
from tests.recipes.evaluation.asked import answer, question

SCHEMA = {
    "type": "object",
    "properties": {"day": {"$ref": "#/$defs/day"}},
    "required": ["day"],
    "$defs": {"day": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}},
}


def schema(folder: Path, value: Any) -> Path:
    path = folder / "schema.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def score(measure: Measure, text: str, reference: str = "{}") -> float | None:
    return measure.score(measure.take(question(reference), answer(text)))


@pytest.mark.parametrize(
    ("text", "is_json"),
    [
        ('{"a": 1}', True),
        (" [1, 2] ", True),
        ("1", False),
        ('{"a": NaN}', False),
        ('```json\n{"a": 1}\n```', False),
        ("[" * 100_000, False),
        ("", False),
    ],
)
def test_json_is_an_object_or_a_list_and_nothing_around_it(text: str, is_json: bool) -> None:
    assert score(forms.json_measure(), text) == is_json


def test_json_is_compared_by_value() -> None:
    measure = forms.json_match()
    assert score(measure, '{"b": [1.0], "a": true}', '{"a":true,"b":[1]}') == 1
    assert score(measure, '{"b": [1], "a": 1}', '{"a":true,"b":[1]}') == 0
    assert score(measure, "no", '{"a":true}') == 0


def test_a_schema_decides(tmp_path: Path) -> None:
    measure = forms.json_schema(schema(tmp_path, SCHEMA))
    assert score(measure, '{"day": "2031-03-05"}') == 1
    assert score(measure, '{"day": "soon"}') == 0
    assert score(measure, "2031-03-05") == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "is no JSON object"),
        ({"type": "objekt"}, "no valid schema at /type"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "refers to '#/\\$defs/b'"),
        ({"$ref": "https://example.org/schema.json"}, "nothing is fetched"),
        ({"pattern": "("}, "is not a 'regex'"),
        ({"patternProperties": {"(": {}}}, "is not a 'regex'"),
    ],
)
def test_a_broken_schema_is_refused_before_anything_is_answered(
    tmp_path: Path, value: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        forms.json_schema(schema(tmp_path, value))


def test_a_schema_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        forms.json_schema(tmp_path / "none.json")
