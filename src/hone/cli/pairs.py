"""`KEY=VALUE` as it is typed, and dotted keys as a tree. It knows no setting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hone.errors import ConfigError


def pairs(words: Sequence[str], what: str) -> dict[str, str]:
    """Each word cut at its first `=`. Raises ConfigError for one without, and for a key that comes twice."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{what}: {word!r} is no KEY=VALUE", remedy="e.g. task=support")
        if key in found:
            raise ConfigError(f"{what}: {key!r} is said twice", remedy="say it once")
        found[key] = value
    return found


def nested(told: Mapping[str, str]) -> dict[str, Any]:
    """Dotted keys as a tree; values as YAML reads a plain word, lists and objects as JSON."""
    tree: dict[str, Any] = {}
    for key, text in told.items():
        *path, last = key.split(".")
        place: dict[str, Any] = tree
        for part in path:
            inner: object = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{key}: {part} has a value of its own already")
            place = cast("dict[str, Any]", inner)
        if last in place:
            raise ConfigError(f"{key} is said twice", remedy="say it once")
        place[last] = _value(key, text)
    return tree


def _value(key: str, text: str) -> Any:
    from hone.config.values import plain_scalar

    if text[:1] not in ("[", "{", '"'):
        return plain_scalar(text).scalar
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"{key}: no JSON: {error}", remedy='e.g. \'["q_proj", "v_proj"]\''
        ) from None
