"""Tool calls against the tools of their domain: mended where a rule says how, refused where they are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from hone.data.agent.calls import calls_of
from hone.data.agent.row import AgentRow, Turn
from hone.data.agent.specification import ArgumentRule, Domain, Specification
from hone.data.agent.steps import Tell
from hone.data.messages import kind
from hone.data.strict import JsonObject
from hone.errors import DataError

UNCHECKED: Final = "unchecked: the domain is unknown"


def check_tools(row: AgentRow, specification: Specification, tell: Tell) -> AgentRow:
    """The row with its calls mended. Raises DataError for one call that is wrong: the conversation is of no use.

    A row of no domain that is known stays as it is, and that is told.
    """
    domain = specification.domain_of(row.system)
    if domain is None:
        tell.note(UNCHECKED)
        return row
    return row.with_turns([_checked(turn, domain, specification, tell) for turn in row.turns])


def _checked(turn: Turn, domain: Domain, specification: Specification, tell: Tell) -> Turn:
    found = calls_of(turn)
    if found is None:
        return turn
    calls: list[JsonObject] = []
    for call in found.calls:
        name = call["name"]
        if name in specification.forbidden:
            raise DataError(f"a forbidden tool is called; found {name!r}")
        tool = domain.tools.get(name)
        if tool is None:
            raise DataError(
                f"a tool is called that domain {domain.name!r} does not have; found {name!r}"
            )
        arguments = call.get("arguments", {})
        _check_arguments(arguments, tool.get("parameters", {}), name)
        calls.append(call | {"arguments": _mended(arguments, domain.rules, name, tell)})
    return turn if tuple(calls) == found.calls else turn.saying(found.write(tuple(calls)))


def _check_arguments(arguments: object, parameters: Mapping[str, Any], name: str) -> None:
    if not isinstance(arguments, dict):
        raise DataError(f"the arguments of a call are an object; found {kind(arguments)} in {name}")
    given = cast("dict[str, Any]", arguments)
    properties: Mapping[str, Any] = parameters.get("properties", {})
    for key in parameters.get("required", []):
        if key not in given:
            raise DataError(f"a required argument is missing; found no {key!r} in {name}")
    for key, value in given.items():
        if key not in properties:
            raise DataError(f"a tool has no such argument; found {key!r} in {name}")
        if not _is_of_type(value, properties[key]):
            wanted = properties[key].get("type")
            raise DataError(
                f"an argument has the wrong type; found {kind(value)} as {key!r} in {name}, "
                f"which takes {wanted}"
            )


def _is_of_type(value: object, schema: Mapping[str, Any]) -> bool:
    """Whether a value is of one of the types. A truth value is no number, and 1.0 is no integer."""
    said = schema.get("type")
    if said is None:
        return True
    types = cast("list[str]", said) if isinstance(said, list) else [said]
    items = schema.get("items")
    match value:
        case None:
            return "null" in types
        case bool():
            return "boolean" in types
        case int():
            return "integer" in types or "number" in types
        case float():
            return "number" in types
        case str():
            return "string" in types
        case list():
            inside = cast("list[Any]", value)
            return "array" in types and (
                not isinstance(items, dict)
                or all(_is_of_type(one, cast("dict[str, Any]", items)) for one in inside)
            )
        case _:
            return "object" in types


def _mended(
    arguments: Mapping[str, Any], rules: tuple[ArgumentRule, ...], name: str, tell: Tell
) -> dict[str, Any]:
    mended = dict(arguments)
    for rule in rules:
        before = mended.get(rule.name)
        if not isinstance(before, str):
            continue
        text = rule.mended(before)
        if fault := rule.fault(text):
            raise DataError(f"{rule.name!r} {fault}; found {before!r} in {name}")
        if text != before:
            tell.repair(f"{rule.name!r} was given its prefix", f"{before!r} became {text!r}")
        mended[rule.name] = text
    return mended
