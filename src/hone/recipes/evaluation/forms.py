"""Measures of answers that are to be JSON: that they parse, what they hold, and that they fit a schema.

jsonschema validates; a schema never makes it fetch anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from hone.errors import ConfigError
from hone.recipes.evaluation.calls import same_json
from hone.recipes.evaluation.measure import Measure, scored
from hone.recipes.evaluation.question import Question
from hone.recipes.evaluation.wording import has_text

_NOTHING: Final = object()


def parse(text: str) -> Any:
    """The JSON value that the text is, or a marker that no value equals: strictly, so without NaN and code fences."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return _NOTHING


def is_json(text: str) -> bool:
    """Whether the text is an object or a list in JSON."""
    return isinstance(parse(text), dict | list)


def json_measure() -> Measure:
    """Whether an answer is JSON."""
    return Measure(
        "json",
        "share of answers that are a JSON object or list, and nothing around it",
        has_text,
        scored(lambda _, a: is_json(a.text)),
    )


def json_match() -> Measure:
    """Whether an answer is the reference's JSON value."""

    def same(question: Question) -> Any:
        return parse(question.reference.text)

    return Measure(
        "json_match",
        "share of answers that are the reference's JSON value, however it is written",
        has_text,
        scored(lambda q, a: is_json(a.text) and same_json(same(q), parse(a.text))),
    )


def json_schema(path: Path) -> Measure:
    """Whether an answer is JSON that fits the schema in the file. Raises ConfigError for one that cannot be used."""
    validator = _validator(path)
    return Measure(
        "json_schema",
        f"share of answers that are JSON and fit the schema {path.name}",
        lambda _: True,
        scored(
            lambda _, a: (
                (value := parse(a.text)) is not _NOTHING and bool(validator.is_valid(value))
            )
        ),
    )


def _validator(path: Path) -> Any:
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY  # pyright: ignore[reportMissingTypeStubs]

    try:
        schema: Any = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, f"cannot be read: {error}") from error
    if not isinstance(schema, dict | bool):
        raise _unusable(path, "is no JSON object")
    made: Any = validator_for(cast(Any, schema))
    try:
        made.check_schema(schema)
    except SchemaError as error:
        place = "/" + "/".join(map(str, error.absolute_path))
        raise _unusable(path, f"is no valid schema at {place}: {error.message}") from error
    _check_parts(path, schema, REGISTRY)
    return made(schema, registry=REGISTRY)


def _check_parts(path: Path, schema: Any, registry: Any) -> None:
    """Follow every reference now: one that is broken must not be found after the answers."""
    from referencing import Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource: Any = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = registry.with_resource("", resource).resolver_with_root(resource)
    for part in _objects(schema):
        reference = part.get("$ref")
        if isinstance(reference, str) and "$id" not in part:
            try:
                resolver.lookup(reference)
            except (Unresolvable, ValueError) as error:
                raise _unusable(
                    path, f"refers to {reference!r}, which is not in it (nothing is fetched)"
                ) from error


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield cast("dict[str, Any]", one)
            waiting += cast("dict[str, Any]", one).values()
        elif isinstance(one, list):
            waiting += cast("list[Any]", one)


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"the schema {why}",
        where=str(path),
        remedy="give --schema a JSON Schema, complete in one file",
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
