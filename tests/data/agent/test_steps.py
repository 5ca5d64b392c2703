"""The agent steps one by one: what each makes of a turn, and what it refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.agent.calls import arguments_from, function_calls, tagged_calls
from hone.data.agent.pipeline import STEPS, Pipeline
from hone.data.agent.specification import Specification
from hone.data.changes import ChangeLedger
from hone.errors import ConfigError, DataError
from tests.data.mixed_rows import anything

HUMAN = ("human", "hi")


def run(turns, *steps: str, system: str | None = "s", **files):
    """The turns after the steps (None where the row is dropped), and the ledger."""
    ledger = ChangeLedger("rows.jsonl")
    row = {"conversations": [{"from": role, "value": value} for role, value in turns]}
    if system is not None:
        row["system"] = system
    done = Pipeline(steps, **files).run(row, ledger.row(1))
    assert ledger.read == ledger.kept + ledger.num_dropped
    found = done and [(one["from"], one["value"]) for one in done["conversations"]]
    return found, ledger


def call(arguments, name: str = "get") -> tuple[str, str]:
    return "function_call", json.dumps({"name": name, "arguments": arguments})


@pytest.mark.parametrize(
    ("said", "meant", "repaired"),
    [
        ({"a": 1}, {"a": 1}, None),
        ('{"a": "é"}', {"a": "é"}, "written as text"),
        ("{'a': 'b'}", {"a": "b"}, "single quotes"),
        ("{'a': \"it's\", 'b': None}", {"a": "it's", "b": None}, "single quotes"),
        ("{'a': true}", {"a": True}, "single quotes"),
        ("", {}, "empty arguments"),
        ("  ", {}, "empty arguments"),
        ("no JSON", {}, "no JSON object"),
        ("[1]", {}, "no JSON object"),
        ("{'a': (1, 2)}", {}, "no JSON object"),
        ("{'a': 1e999}", {}, "no JSON object"),
        ([1], {}, "no JSON object"),
        (3, {}, "no JSON object"),
        (None, {}, "no JSON object"),
    ],
)
def test_fix_arguments(said, meant, repaired) -> None:
    found, ledger = run([HUMAN, call(said)], "fix-arguments")
    assert json.loads(found[1][1]) == {"name": "get", "arguments": meant}
    assert [one for one in ledger.repaired if repaired and repaired in one] or not repaired
    assert bool(ledger.repaired) == bool(repaired)


def test_fix_arguments_leaves_the_rest() -> None:
    think = ("function_call", '<think>\nnow\n</think>\n{"name": "get"}')
    broken = ("function_call", '{"name": "get"')
    found, _ = run([HUMAN, think, broken, ("gpt", '{"arguments": "x"}')], "fix-arguments")
    assert found == [
        HUMAN,
        ("function_call", '<think>\nnow\n</think>\n{"name": "get", "arguments": {}}'),
        broken,
        ("gpt", '{"arguments": "x"}'),
    ]


@pytest.mark.parametrize("turn", [("gpt", "a <tool_x"), ("observation", 'a\n[{"b": 1}]')])
def test_fix_arguments_refuses_calls_in_texts(turn) -> None:
    found, ledger = run([HUMAN, turn], "fix-arguments")
    assert found is None
    assert all(reason.startswith("fix-arguments: a turn") for reason in ledger.dropped)


def test_hermes() -> None:
    think = ("function_call", '<think>now</think>{"name": "gét", "arguments": {"a": 1}}')
    both = ("function_call", '[{"name": "a", "arguments": {}}, {"name": "b"}]')
    found, _ = run([HUMAN, think, ("observation", '{"x": 1}'), both], "hermes")
    assert found == [
        HUMAN,
        (
            "gpt",
            "<think>now</think>\n<tool_call>\n"
            '{"name": "gét", "arguments": {"a": 1}}\n</tool_call>\n',
        ),
        ("human", '{"x": 1}'),
        (
            "gpt",
            '<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>\n'
            '<tool_call>\n{"name": "b", "arguments": {}}\n</tool_call>\n',
        ),
    ]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        '{"name": "a"',
        '{"arguments": {}}',
        "[]",
        "3",
        '{"name": "a"}, "b": {}',
        '{"name": 3}',
    ],
)
def test_hermes_refuses_what_is_no_call(value) -> None:
    found, ledger = run([HUMAN, ("function_call", value)], "hermes")
    assert found is None
    assert next(iter(ledger.dropped)).startswith("hermes: a function call")


TOOL = '<tool_call>\n{"name": "get", "arguments": {}}\n</tool_call>\n'


@pytest.mark.parametrize(
    ("turn", "wanted"),
    [
        (("gpt", "hello"), ("gpt", "hello")),
        (("gpt", TOOL), ("gpt", f"I will call the function get.\n\n{TOOL}")),
        (("gpt", f"Wait.\n{TOOL}"), ("gpt", f"Wait.\n{TOOL}")),
        (("gpt", f"<think>\nwhy\n</think>\n{TOOL}"), ("gpt", f"why\n\n{TOOL}")),
        (("gpt", f"<think>why</think>{TOOL}"), ("gpt", f"why\n\n{TOOL}")),
        (
            ("gpt", f"<think>\n\n</think>\n\n{TOOL}"),
            ("gpt", f"I will call the function get.\n\n{TOOL}"),
        ),
        (("gpt", f"why</think>{TOOL}"), ("gpt", f"why{TOOL}")),
        (("gpt", "<think>why</think>the answer"), None),
        (("gpt", "<think>why"), None),
        (("human", "<think>a\n</think> b"), ("human", "b")),
        (("human", "a <thi<think>nk> b"), ("human", "a  b")),
        (("observation", "<think>a</think>"), None),
        (
            ("observation", '<think>a</think>{"name": "b", "arguments": 1}'),
            ("observation", 'a\n\n{"name": "b", "arguments": 1}'),
        ),
        (
            ("function_call", '<think>a</think>{"name": "b"}'),
            ("function_call", '{"name": "b"}'),
        ),
    ],
)
def test_remove_think(turn, wanted) -> None:
    found, _ = run([HUMAN, turn], "remove-think")
    assert found == ([HUMAN] if wanted is None else [HUMAN, wanted])
    assert run(found, "remove-think")[0] == found


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "\n", "a", TOOL, "<thi", "nk>"])).map("".join)
)
def test_no_tag_is_left(text) -> None:
    for role in ("human", "gpt", "observation"):
        found, _ = run([HUMAN, (role, text)], "remove-think")
        assert found is not None
        assert "<think>" not in repr(found)
        assert "</think>" not in repr(found)


def test_nothing_but_thoughts() -> None:
    found, ledger = run([("gpt", "<think>a</think>")], "remove-think")
    assert found is None
    assert list(ledger.dropped) == ["remove-think: no turn is left"]


def test_merge_turns_and_the_end() -> None:
    turns = [HUMAN, ("human", "you"), ("gpt", "a"), ("gpt", "b"), ("gpt", "c"), ("human", "d")]
    found, _ = run(turns, "merge-turns", "drop-trailing-user")
    assert found == [("human", "hi\nyou"), ("gpt", "a\nb\nc")]
    assert run([HUMAN], "drop-trailing-user")[0] is None
    found, _ = run([HUMAN, ("gpt", "a"), HUMAN, ("observation", "b")], "drop-trailing-user")
    assert found == [HUMAN, ("gpt", "a")]
    found, _ = run([HUMAN, call({}), call({"a": 1})], "merge-turns")
    assert [one["arguments"] for one in json.loads(found[1][1])] == [{}, {"a": 1}]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("gpt", "a"), HUMAN], "the user does not begin"),
        ([HUMAN, ("gpt", "\n")], "a turn is blank"),
        ([HUMAN], "nobody answers"),
    ],
)
def test_check_turns(turns, reason) -> None:
    found, ledger = run(turns, "check-turns")
    assert found is None
    assert list(ledger.dropped) == [f"check-turns: {reason}"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "'conversations' is a list of turns, and not empty"),
        ({"conversations": []}, "'conversations' is a list of turns, and not empty"),
        ({"conversations": [3]}, "a turn is an object"),
        ({"conversations": [{"from": "tool", "value": ""}]}, "unknown role 'tool'"),
        ({"conversations": [{"from": "gpt", "value": 3}]}, "the value of a turn is text"),
        ({"conversations": [{"from": "gpt", "value": ""}], "system": 3}, "the system text is text"),
    ],
)
def test_what_is_no_agent_row(row, reason) -> None:
    ledger = ChangeLedger("rows.jsonl")
    assert Pipeline(["merge-turns"]).run(row, ledger.row(1)) is None
    assert list(ledger.dropped) == [f"read: {reason}"]


def test_columns_and_keys_beside_are_kept() -> None:
    row = {
        "id": 7,
        "conversations": [
            {"from": "system", "value": "be brief"},
            {"from": "human", "value": "a", "loss": False},
        ],
        "tools": "[]",
    }
    ledger = ChangeLedger("rows.jsonl")
    assert Pipeline(["hermes"]).run(row, ledger.row(1)) == {
        "id": 7,
        "conversations": [{"from": "human", "value": "a", "loss": False}],
        "tools": "[]",
        "system": "be brief",
    }
    assert list(ledger.repaired) == ["read: the system turn became the system text"]


def test_system_prompts() -> None:
    prompts = {"retail": "Retail rules.", "airline": "Airline rules."}
    for system, wanted in (
        ("You work for RETAIL.", "Retail rules."),
        ("An airline.", "Airline rules."),
        ("A bank.", "A bank."),
        (None, None),
    ):
        ledger = ChangeLedger("rows.jsonl")
        row = {"conversations": [{"from": "human", "value": "a"}]}
        if system is not None:
            row["system"] = system
        done = Pipeline(["system-prompt"], prompts=prompts).run(row, ledger.row(1))
        assert done is not None
        assert done.get("system") == wanted
        assert bool(ledger.noted) == (wanted not in prompts.values())


@pytest.mark.parametrize(
    ("steps", "files", "said"),
    [
        (["merge"], {}, "no step 'merge'"),
        ([], {}, "no step at all"),
        (["check-tools"], {}, "needs the domain's tools"),
        (STEPS, {"specification": Specification(())}, "needs the prompts"),
        (["hermes"], {"prompts": {"a": "b"}}, "--prompts has no effect"),
        (["hermes"], {"specification": Specification(())}, "--tools has no effect"),
        (["system-prompt"], {"prompts": {"a": "{tools}"}}, "asks for {tools}"),
        (
            ["system-prompt"],
            {"prompts": {"a": "b"}, "specification": Specification(())},
            "no domain of --tools",
        ),
    ],
)
def test_steps_and_files_that_do_not_fit(steps, files, said) -> None:
    with pytest.raises(ConfigError) as caught:
        Pipeline(steps, **files)
    assert said in caught.value.what


def test_steps_run_in_their_order() -> None:
    assert Pipeline(["drop-trailing-user", "merge-turns"]).steps == [
        "merge-turns",
        "drop-trailing-user",
    ]


json_objects = st.dictionaries(anything, st.none() | st.booleans() | st.integers() | anything)


@given(st.lists(json_objects, min_size=1, max_size=3), anything.filter(lambda t: "<tool_" not in t))
def test_calls_are_found_whatever_their_arguments_spell(arguments, text) -> None:
    calls = tuple(
        {"name": "a", "arguments": one | {"</tool_call>": "<tool_call>"}} for one in arguments
    )
    value = text + "".join(f"<tool_call>\n{json.dumps(one)}\n</tool_call>\n" for one in calls)
    found = tagged_calls(value)
    assert found.calls == calls
    assert tagged_calls(found.write(calls)).calls == calls
    listed = function_calls(json.dumps(list(calls)))
    assert function_calls(listed.write(calls)).calls == calls


@given(st.text(max_size=30))
def test_arguments_never_crash(text) -> None:
    found, how = arguments_from(text)
    assert isinstance(found, dict)
    assert how


def test_a_call_that_is_not_closed() -> None:
    for value in ("<tool_call>{}", '<tool_call>{"name": "a"}', "<tool_call>x</tool_call>"):
        with pytest.raises(DataError):
            tagged_calls(value)
