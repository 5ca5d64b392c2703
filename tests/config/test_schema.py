"""Every field says what it is, and the JSON Schema says the same as the models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from hone.config.fields import sections, settings
from hone.config.schema import json_schema
from hone.config.sections import Config


def properties(
    schema: dict[str, Any], *, definitions: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in schema["properties"].items():
        yield prefix + key, value
        if "$ref" in value:
            target = definitions[value["$ref"].rpartition("/")[2]]
            yield from properties(target, definitions=definitions, prefix=f"{prefix}{key}.")


def test_every_setting_has_a_description_and_words_for_what_it_takes() -> None:
    for name, setting in settings().items():
        assert len(setting.description) > 15, f"{name} has no description"
        assert setting.description[0].isupper() or setting.description[0] == "`", name
        assert setting.wanted, name


def test_the_schema_holds_exactly_the_settings() -> None:
    schema = json_schema()
    found = dict(properties(schema, definitions=schema["$defs"]))
    assert set(found) == set(settings()) | set(sections())
    for name, setting in settings().items():
        assert found[name]["description"] == setting.description
    for part in (schema, *schema["$defs"].values()):
        assert part["additionalProperties"] is False


def test_bounds_are_standard_keywords() -> None:
    schema = json_schema()
    train = schema["$defs"]["TrainSection"]["properties"]
    assert train["batch_size"]["minimum"] == 1
    assert train["learning_rate"]["anyOf"][0]["exclusiveMinimum"] == 0
    known = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    assert not {"ge", "gt", "le", "lt"} & {word for word in _keys(schema) if word not in known}


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _keys(each)
    elif isinstance(value, list):
        for each in value:
            yield from _keys(each)


def test_the_defaults_are_valid_and_resolve_quickly() -> None:
    begin = time.process_time()
    Config.model_validate(Config().model_dump())
    assert time.process_time() - begin < 0.5
