"""The tools of each domain and the rules of their arguments, from a JSON file of the user. It knows no conversation.

    {"forbidden_tools": ["think"],
     "domains": [
       {"name": "retail",
        "match": ["retail"],                       a system text with one of these words is of this domain
        "tools": [{"name": ..., "parameters": {"type": "object", "properties": ..., "required": [...]}}],
        "arguments": [{"name": "order_id", "prefix": "#"},
                      {"name": "customer_id", "digits_prefix": "C", "pattern": "C[0-9]+"},
                      {"name": "email", "contains": "@"},
                      {"name": "payment_method_id", "starts_with": ["gift_card_", "paypal_"]}]}]}

Tools are bare functions, or OpenAI's `{"type": "function", "function": {...}}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from hone.data.example import Origin
from hone.data.messages import kind
from hone.data.strict import parse_object
from hone.errors import ConfigError, DataError, nearest

_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
_RULES: Final = ("contains", "digits_prefix", "name", "pattern", "prefix", "starts_with")


@dataclass(frozen=True)
class ArgumentRule:
    """What holds for an argument of one name, wherever a text stands in it."""

    name: str
    prefix: str = ""
    """Put before a text that does not begin with it."""
    digits_prefix: str = ""
    """Put before a text of digits alone."""
    contains: str = ""
    starts_with: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    """What the whole text must match."""

    def mended(self, text: str) -> str:
        """The text with the prefix that it lacks."""
        if self.prefix and not text.startswith(self.prefix):
            return self.prefix + text
        if self.digits_prefix and text.isascii() and text.isdigit():
            return self.digits_prefix + text
        return text

    def fault(self, text: str) -> str:
        """What is wrong with a text; empty where nothing is."""
        if self.contains and self.contains not in text:
            return f"holds no {self.contains!r}"
        if self.starts_with and not text.startswith(self.starts_with):
            return f"does not begin with {' or '.join(map(repr, self.starts_with))}"
        if self.pattern is not None and not self.pattern.fullmatch(text):
            return f"does not match {self.pattern.pattern!r}"
        return ""


@dataclass(frozen=True)
class Domain:
    """The tools of a domain by name, and the rules of their arguments."""

    name: str
    words: tuple[str, ...]
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    rules: tuple[ArgumentRule, ...] = ()
    listed: tuple[Any, ...] = ()
    """The tools as the file has them."""


@dataclass(frozen=True)
class Specification:
    """Domains in the order of the file, and tools that make a conversation useless."""

    domains: tuple[Domain, ...]
    forbidden: frozenset[str] = frozenset({"think"})

    def domain_of(self, system: str | None) -> Domain | None:
        """The first domain one of whose words stands in the text, in whatever case; None where none does.

        A word that is part of a longer word found there counts for nothing: `air` beside `airline`.
        """
        text = (system or "").lower()
        found = [(word, one) for one in self.domains for word in one.words if word in text]
        for word, domain in found:
            if not any(word != other and word in other for other, _ in found):
                return domain
        return None


def read_specification(path: Path) -> Specification:
    """The specification in a file. Raises ConfigError with the place in it."""
    told = read_json(path)
    _check_keys(told, ("domains", "forbidden_tools"), str(path))
    listed = _list(told.get("domains"), f"{path} /domains")
    domains = tuple(_domain(one, f"{path} /domains/{i}") for i, one in enumerate(listed))
    names = [one.name for one in domains]
    if len(set(names)) != len(names) or not names:
        _refuse("domains have names of their own, and there is at least one", f"{path} /domains")
    forbidden = told.get("forbidden_tools", ["think"])
    return Specification(domains, frozenset(_texts(forbidden, f"{path} /forbidden_tools")))


def read_prompts(path: Path) -> dict[str, str]:
    """The system prompt of each domain: `{"retail": "You are ...", ...}`. Raises ConfigError."""
    told = read_json(path)
    for name, text in told.items():
        if not isinstance(text, str) or not text.strip():
            _refuse(f"a prompt is text; found {kind(text)}", f"{path} /{name}")
    if not told:
        _refuse("no prompt at all", str(path))
    return cast("dict[str, str]", told)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, strictly. Raises ConfigError."""
    try:
        return parse_object(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), Origin(str(path), 1))
    except OSError as fault:
        raise ConfigError(
            f"cannot read the file: {fault.strerror or fault}",
            where=str(path),
            remedy="name a JSON file",
        ) from fault
    except DataError as fault:
        raise ConfigError(fault.what, where=str(path), remedy=fault.remedy) from fault


def _domain(value: object, where: str) -> Domain:
    told = _object(value, where)
    _check_keys(told, ("arguments", "match", "name", "tools"), where)
    name = _text(told.get("name"), f"{where}/name")
    words = _texts(told.get("match", [name]), f"{where}/match")
    listed = _list(told.get("tools"), f"{where}/tools")
    tools: dict[str, Mapping[str, Any]] = {}
    for i, one in enumerate(listed):
        tool = _tool(one, f"{where}/tools/{i}")
        if tool["name"] in tools:
            _refuse(f"two tools are named {tool['name']!r}", f"{where}/tools/{i}")
        tools[tool["name"]] = tool
    rules = tuple(
        _rule(one, f"{where}/arguments/{i}")
        for i, one in enumerate(_list(told.get("arguments", []), f"{where}/arguments"))
    )
    return Domain(name, tuple(word.lower() for word in words), tools, rules, tuple(listed))


def _tool(value: object, where: str) -> dict[str, Any]:
    tool = _object(value, where)
    if "function" in tool:
        tool = _object(tool["function"], f"{where}/function")
    _text(tool.get("name"), f"{where}/name")
    parameters = _object(tool.get("parameters", {}), f"{where}/parameters")
    properties = _object(parameters.get("properties", {}), f"{where}/parameters/properties")
    for name, schema in properties.items():
        _check_type(_object(schema, f"{where}/parameters/properties/{name}"), where, name)
    required = _texts(parameters.get("required", []), f"{where}/parameters/required")
    if stray := [name for name in required if name not in properties]:
        _refuse(f"{stray[0]!r} is required and is no property", f"{where}/parameters/required")
    return tool


def _check_type(schema: Mapping[str, Any], where: str, name: str) -> None:
    said = schema.get("type", [])
    types = cast("list[Any]", said) if isinstance(said, list) else [said]
    for one in types:
        if one not in _TYPES:
            where = f"{where}/parameters/properties/{name}/type"
            raise ConfigError(
                f"unknown type {one!r}", where=where, remedy=nearest(str(one), _TYPES)
            )
    if isinstance(schema.get("items"), dict):
        _check_type(schema["items"], where, f"{name}/items")


def _rule(value: object, where: str) -> ArgumentRule:
    told = _object(value, where)
    _check_keys(told, _RULES, where)
    told = {"name": None} | told
    pattern: re.Pattern[str] | None = None
    if "pattern" in told:
        try:
            pattern = re.compile(_text(told["pattern"], f"{where}/pattern"))
        except re.error as fault:
            _refuse(f"no regular expression: {fault}", f"{where}/pattern")
    plain = {
        key: _text(told[key], f"{where}/{key}")
        for key in ("name", "prefix", "digits_prefix", "contains")
        if key in told
    }
    starts = _texts(told.get("starts_with", []), f"{where}/starts_with")
    return ArgumentRule(**plain, starts_with=tuple(starts), pattern=pattern)


def _check_keys(told: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for key in told:
        if key not in allowed:
            raise ConfigError(f"unknown key {key!r}", where=where, remedy=nearest(key, allowed))


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"an object is wanted; found {kind(value)}", where)
    return cast("dict[str, Any]", value)


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        _refuse(f"a list is wanted; found {kind(value)}", where)
    return cast("list[Any]", value)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        _refuse(f"text is wanted; found {kind(value)}", where)
    return value


def _texts(value: object, where: str) -> list[str]:
    return [_text(one, f"{where}/{i}") for i, one in enumerate(_list(value, where))]


def _refuse(what: str, where: str) -> NoReturn:
    raise ConfigError(what, where=where, remedy="see examples/agent for files that are right")
