"""Calls against their domain's tools: types strictly, prefixes mended, all else refused by its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.data.agent.check import UNCHECKED
from hone.data.agent.pipeline import Pipeline
from hone.data.agent.specification import Domain, Specification, read_prompts, read_specification
from hone.data.changes import ChangeLedger
from hone.errors import ConfigError

PROPERTIES = {
    "text": {"type": "string"},
    "whole": {"type": "integer"},
    "number": {"type": "number"},
    "truth": {"type": "boolean"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "thing": {"type": "object"},
    "maybe": {"type": ["string", "null"]},
    "any": {},
}
SPECIFICATION = {
    "domains": [
        {
            "name": "shop",
            "tools": [{"name": "get", "parameters": {"type": "object", "properties": PROPERTIES}}],
            "arguments": [
                {"name": "text", "prefix": "#", "pattern": "#[a-z0-9]*"},
                {"name": "maybe", "digits_prefix": "C", "starts_with": ["C", "D"]},
            ],
        }
    ]
}


def specification(tmp_path: Path, value: object = SPECIFICATION) -> Specification:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps(value))
    return read_specification(path)


def check(tmp_path: Path, arguments: object, *, name: str = "get", form: str = "function_call"):
    ledger = ChangeLedger("rows.jsonl")
    value = json.dumps({"name": name, "arguments": arguments})
    if form == "gpt":
        value = f"Wait.\n<tool_call>\n{value}\n</tool_call>\n"
    row = {"system": "A Shop.", "conversations": [{"from": form, "value": value}]}
    done = Pipeline(["check-tools"], specification=specification(tmp_path)).run(row, ledger.row(1))
    return done and done["conversations"][0]["value"], ledger


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"text": "#a"}, True),
        ({"text": 1}, False),
        ({"text": None}, False),
        ({"whole": 3}, True),
        ({"whole": 3.0}, False),
        ({"whole": True}, False),
        ({"number": 3}, True),
        ({"number": 0.5}, True),
        ({"number": False}, False),
        ({"number": "3"}, False),
        ({"truth": True}, True),
        ({"truth": 1}, False),
        ({"texts": ["a", "b"]}, True),
        ({"texts": []}, True),
        ({"texts": ["a", 1]}, False),
        ({"texts": "a"}, False),
        ({"thing": {"x": []}}, True),
        ({"thing": []}, False),
        ({"maybe": None}, True),
        ({"maybe": 3}, False),
        ({"any": [None]}, True),
    ],
)
def test_types(tmp_path: Path, arguments, right) -> None:
    found, ledger = check(tmp_path, arguments)
    assert (found is not None) == right
    assert list(ledger.dropped) == (
        [] if right else ["check-tools: an argument has the wrong type"]
    )


@pytest.mark.parametrize("form", ["function_call", "gpt"])
def test_mended_in_either_form(tmp_path: Path, form: str) -> None:
    found, ledger = check(tmp_path, {"text": "a1", "maybe": "7"}, form=form)
    assert '{"text": "#a1", "maybe": "C7"}' in found
    assert found.startswith("Wait.\n<tool_call>\n") == (form == "gpt")
    assert set(ledger.repaired) == {
        "check-tools: 'text' was given its prefix",
        "check-tools: 'maybe' was given its prefix",
    }
    again, ledger = check(tmp_path, {"text": "#a1", "maybe": "D7"}, form=form)
    assert again
    assert not ledger.repaired


@pytest.mark.parametrize(
    ("arguments", "name", "reason"),
    [
        ({"text": "A!"}, "get", "'text' does not match"),
        ({"maybe": "x"}, "get", "'maybe' does not begin with 'C' or 'D'"),
        ({"other": 1}, "get", "a tool has no such argument"),
        ([], "get", "the arguments of a call are an object"),
        ({}, "put", "a tool is called that domain 'shop' does not have"),
        ({}, "think", "a forbidden tool is called"),
    ],
)
def test_refused(tmp_path: Path, arguments, name, reason) -> None:
    found, ledger = check(tmp_path, arguments, name=name)
    assert found is None
    assert next(iter(ledger.dropped)).startswith(f"check-tools: {reason}")


def test_a_domain_that_nobody_knows_is_kept_and_counted(tmp_path: Path) -> None:
    ledger = ChangeLedger("rows.jsonl")
    row = {"conversations": [{"from": "function_call", "value": "no call at all"}]}
    done = Pipeline(["check-tools"], specification=specification(tmp_path)).run(row, ledger.row(1))
    assert done == row
    assert list(ledger.noted) == [f"check-tools: {UNCHECKED}"]


def test_which_domain() -> None:
    def names(*domains: str) -> Specification:
        return Specification(tuple(Domain(name, (name,)) for name in domains))

    found = names("retail", "airline").domain_of("An AIRLINE that is no retail shop")
    assert found is not None
    assert found.name == "retail"  # the order of the file
    found = names("air", "airline").domain_of("An airline")
    assert found is not None
    assert found.name == "airline"  # a part of a longer word counts for nothing
    assert names("retail").domain_of("A bank") is None
    assert names("retail").domain_of(None) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "a list is wanted"),
        ({"domains": []}, "at least one"),
        ({"domains": [{"name": "a", "tools": []}] * 2}, "names of their own"),
        ({"domain": []}, "unknown key 'domain'"),
        ({"domains": [{"name": "a"}]}, "a list is wanted"),
        ({"domains": [{"name": "a", "tools": [{"parameters": {}}]}]}, "text is wanted"),
        ({"domains": [{"name": "a", "tools": [{"name": "t"}, {"name": "t"}]}]}, "two tools"),
        (
            {"domains": [{"name": "a", "tools": [{"name": "t", "parameters": {"required": ["x"]}}]}]},
            "no property",
        ),
        (
            {"domains": [{"name": "a", "tools": [{"name": "t", "parameters": {"properties": {"x": {"type": "str"}}}}]}]},
            "unknown type 'str'",
        ),
        ({"domains": [{"name": "a", "tools": [], "arguments": [{"name": "x", "prefx": "#"}]}]}, "unknown key 'prefx'"),
        ({"domains": [{"name": "a", "tools": [], "arguments": [{"name": "x", "pattern": "("}]}]}, "no regular expression"),
        ({"domains": [{"name": "a", "tools": [], "arguments": [{"prefix": "#"}]}]}, "text is wanted"),
    ],
)  # fmt: skip
def test_specifications_that_are_wrong(tmp_path: Path, value, said) -> None:
    with pytest.raises(ConfigError) as caught:
        specification(tmp_path, value)
    assert said in caught.value.what
    assert "tools.json" in str(caught.value.where)
    assert caught.value.remedy


def test_files_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_specification(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="JSON"):
        read_prompts(tmp_path / "bad.json")
    for value, said in (({}, "no prompt"), ({"a": 3}, "a prompt is text")):
        (tmp_path / "p.json").write_text(json.dumps(value))
        with pytest.raises(ConfigError, match=said):
            read_prompts(tmp_path / "p.json")
