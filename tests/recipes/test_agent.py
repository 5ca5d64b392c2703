"""The agent recipe as a whole: each example row gets the fate that it tells of, and every row is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.agent.pipeline import STEPS
from hone.errors import ConfigError, DataError
from hone.recipes.agent import clean_agent_rows
from hone.recipes.change import Places
from tests.data.mixed_rows import bad, blank, check_sum, line, write

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "agent"
TOOLS, PROMPTS = EXAMPLES / "tools.json", EXAMPLES / "prompts.json"
ROWS = [json.loads(one) for one in (EXAMPLES / "rows.jsonl").read_text().splitlines()]

# What an example row says of itself, and the reason that the ledger must give for its line.
FATES = {
    "kept: nothing to repair in the call": "hermes: function calls became tool_call text",
    "kept: every script stays as it is": "hermes: function calls became tool_call text",
    "dropped: a turn spells a tool tag": "fix-arguments: a turn spells a tool tag",
    "dropped: a list of objects on a line of its own": "fix-arguments: a turn holds a list of objects on a line of its own",
    "repaired: arguments as text": "fix-arguments: arguments written as text were parsed",
    "repaired: arguments in single quotes": "fix-arguments: arguments in single quotes were parsed",
    "repaired: an apostrophe between single quotes": "fix-arguments: arguments in single quotes were parsed",
    "repaired, then dropped: empty arguments": "check-tools: a required argument is missing",
    "repaired, then dropped: arguments that are a list": "check-tools: a required argument is missing",
    "repaired, then dropped: arguments that are no JSON": "check-tools: a required argument is missing",
    "repaired, then dropped: no arguments": "check-tools: a required argument is missing",
    "dropped: a call that is not JSON": "hermes: a function call is not JSON",
    "dropped: a tool that the domain does not have": "check-tools: a tool is called that domain 'retail' does not have",
    "dropped: a forbidden tool": "check-tools: a forbidden tool is called",
    "dropped: a required argument is missing": "check-tools: a required argument is missing",
    "dropped: an argument that the tool does not have": "check-tools: a tool has no such argument",
    "dropped: a number where text is wanted": "check-tools: an argument has the wrong type",
    "dropped: a truth value where a whole number is wanted": "check-tools: an argument has the wrong type",
    "dropped: an item of a list has the wrong type": "check-tools: an argument has the wrong type",
    "repaired: an order without its sign": "check-tools: 'order_id' was given its prefix",
    "repaired: a customer of digits alone": "check-tools: 'customer_id' was given its prefix",
    "dropped: an e-mail without @": "check-tools: 'email' holds no '@'",
    "dropped: a way of payment of no kind": "check-tools: 'payment_method_id' does not begin with 'gift_card_' or 'credit_card_' or 'paypal_'",
    "dropped: a line that is no letter and digits": "check-tools: 'line_id' does not match 'L[0-9]+'",
    "noted: a domain that nobody knows is not checked": "check-tools: unchecked: the domain is unknown",
    "repaired: a turn that only thinks goes": "remove-think: a turn of the assistant that only thinks was removed",
    "repaired: a think tag without a line feed goes whole": "remove-think: thoughts before a call became text",
    "repaired: thoughts before a call become text": "remove-think: thoughts before a call became text",
    "repaired: thoughts of the user go": "remove-think: thoughts in a turn that is not the assistant's were removed",
    "repaired: a tag that nothing closes goes": "remove-think: thoughts in a turn that is not the assistant's were removed",
    "dropped: nothing but thoughts": "remove-think: no turn is left",
    "repaired: turns of one role become one": "merge-turns: neighbouring turns of one role were joined",
    "repaired: a user turn at the end goes": "drop-trailing-user: a turn after the last answer was removed",
    "dropped: the assistant begins": "check-turns: the user does not begin",
    "dropped: a blank turn": "check-turns: a turn is blank",
    "dropped: a role that nobody knows": "read: unknown role 'tool'",
    "dropped: no conversations": "read: 'conversations' is a list of turns, and not empty",
}  # fmt: skip


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("agent") / "out.json"
    report = clean_agent_rows(Places(EXAMPLES / "rows.jsonl", out), tools=TOOLS, prompts=PROMPTS)
    return report.ledgers[0], {one["rule"]: one for one in json.loads(out.read_text())}


@pytest.mark.parametrize("number", range(1, len(ROWS) + 1))
def test_each_example_gets_its_fate(cleaned, number: int) -> None:
    ledger, kept = cleaned
    rule = ROWS[number - 1]["rule"]
    fate = rule.partition(":")[0].rpartition(" ")[2]
    table = {"dropped": ledger.dropped, "noted": ledger.noted}.get(fate, ledger.repaired)
    assert number in table[FATES[rule]].lines
    assert (rule in kept) == (fate != "dropped")


def test_every_rule_has_its_row() -> None:
    assert [one["rule"] for one in ROWS] == list(FATES)


def test_what_is_left_is_fit_to_be_learned(cleaned) -> None:
    ledger, kept = cleaned
    assert ledger.read == len(ROWS) == ledger.kept + ledger.num_dropped
    assert len(kept) == ledger.kept
    for row in kept.values():
        roles = [one["from"] for one in row["conversations"]]
        assert roles == ["human", "gpt"] * (len(roles) // 2)
        assert "think>" not in json.dumps(row["conversations"])
        assert all(one["value"].strip() for one in row["conversations"])
    known = kept["kept: every script stays as it is"]
    assert known["system"].startswith("You serve the customers of a retail shop.")
    assert '"name": "get_order"' in known["system"]
    assert '{"email": "jörg@mail.example"}' in known["conversations"][1]["value"]
    unknown = kept["noted: a domain that nobody knows is not checked"]
    assert unknown["system"] == "You are an agent of a bank."


@pytest.mark.parametrize("step", STEPS)
def test_each_step_alone(tmp_path: Path, step: str) -> None:
    places = Places(EXAMPLES / "rows.jsonl", tmp_path / "out.jsonl")
    report = clean_agent_rows(
        places,
        steps=[step],
        tools=TOOLS if step in ("check-tools", "system-prompt") else None,
        prompts=PROMPTS if step == "system-prompt" else None,
    )
    assert report.ledgers[0].read == len(ROWS)
    reasons = {**report.ledgers[0].dropped, **report.ledgers[0].repaired}
    assert {reason.partition(":")[0] for reason in reasons} <= {"read", step}
    assert any(reason.startswith(step) for reason in reasons)


turns = st.builds(
    lambda role, value: {"from": role, "value": value},
    st.sampled_from(["human", "gpt", "function_call", "observation"]),
    st.sampled_from(
        [
            "hi",
            "",
            "<think>a</think>",
            "<think>",
            '{"name": "get_order", "arguments": {"order_id": "W1"}}',
            '<think>a</think>{"name": "get_order", "arguments": "{\'order_id\': \'1\'}"}',
            '{"name": "think"}',
            '<tool_call>\n{"name": "get_order", "arguments": {}}\n</tool_call>',
        ]
    ),
)
agent_rows = st.builds(
    lambda said, system: line({"conversations": said, "system": system}),
    st.lists(turns, min_size=1, max_size=5),
    st.sampled_from(["retail", "airline", "telecom", "bank", ""]),
)
mixed = st.lists(st.one_of(agent_rows, agent_rows, bad, blank), min_size=1, max_size=20)
some_steps = st.lists(st.sampled_from(STEPS), min_size=1, max_size=8)


@given(mixed, some_steps | st.just(list(STEPS)))
def test_read_is_kept_and_dropped(tmp_path_factory, lines, steps) -> None:
    folder = tmp_path_factory.mktemp("agent")
    source = write(folder / "rows.jsonl", lines)
    wants = {"check-tools", "system-prompt"} & set(steps)
    try:
        report = clean_agent_rows(
            Places(source, folder / "out.jsonl"),
            steps=steps,
            tools=TOOLS if wants else None,
            prompts=PROMPTS if "system-prompt" in steps else None,
        )
    except DataError:
        assert [one.name for one in folder.iterdir()] == ["rows.jsonl"]
        return
    check_sum(report.to_json(), lines=lines)
    assert report.kept == (folder / "out.jsonl").read_bytes().count(b"\n")


def test_the_users_files_are_never_written(tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_bytes(TOOLS.read_bytes())
    with pytest.raises(ConfigError, match="in place"):
        clean_agent_rows(
            Places(EXAMPLES / "rows.jsonl", tools, force=True), steps=["check-tools"], tools=tools
        )
    assert tools.read_bytes() == TOOLS.read_bytes()
