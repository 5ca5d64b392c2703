"""Length policies: no row beyond the limit, nothing trained that would not be, and every lost token counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.config.sections import DataSection
from hone.data.conversation import Conversation, Message, ToolCall
from hone.data.example import Example, Origin
from hone.data.lengths import (
    ALL_CUT,
    NO_TURNS,
    STILL_TOO_LONG,
    chosen,
    fair_share,
    groups_to_leave_out,
    kept_mask,
    share_mask,
    shorten,
)
from hone.data.reader import Row
from hone.data.render import Renderer, trained_texts
from hone.data.road import Road
from tests.data.small import CHATML, byte_level, family, talk, with_template

ORIGIN = Origin("rows.jsonl", 1)
POLICIES = ["oldest", "cut", "share"]
RENDERER = Renderer(*family("byte-level"))


def example(*pairs: tuple[int, int], tail: int = 0) -> Example:
    """Contexts and answers of these lengths; the ids count up."""
    weight = [w for source, target in pairs for w in [0.0] * source + [1.0] * target] + [0.0] * tail
    return Example(
        np.arange(len(weight), dtype=np.int32), np.array(weight, dtype=np.float32), ORIGIN
    )


def renders(conversation: Conversation) -> list[Example]:
    return RENDERER.render(conversation)


@pytest.mark.parametrize(
    ("source", "target", "room", "kept"),
    [
        (10, 4, 14, (10, 4)),  # both fit
        (10, 4, 10, (6, 4)),  # a short answer is kept, its context cut
        (3, 40, 10, (3, 7)),  # a short context is kept, its answer cut
        (30, 10, 20, (15, 5)),  # else in proportion
        (10, 10, 10, (5, 5)),
        (100, 1, 2, (2, 0)),
        (5, 0, 3, (3, 0)),
    ],
)
def test_the_proportional_rule(source, target, room, kept):
    assert fair_share(source, target, room) == kept


@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 600))
def test_the_proportional_rule_fills_the_room_and_no_more(source, target, room):
    a, b = fair_share(source, target, room)
    assert 0 <= a <= source
    assert 0 <= b <= target
    assert a + b == min(room, source + target)


def test_pairs_are_taken_in_order_and_what_follows_a_cut_one_is_left_out():
    one = example((4, 4), (6, 2), (3, 3), tail=2)
    assert np.flatnonzero(share_mask(one, 13)).tolist() == [*range(11), 14, 15]
    assert share_mask(one, 24).all()
    assert np.flatnonzero(share_mask(one, 23)).tolist() == list(range(23))
    assert chosen(one, share_mask(one, 8)).num_tokens == 8
    assert (
        share_mask(example((50, 1)), 2).sum() == 0
    )  # not one token of the answer: no context either


@given(
    pairs=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5),
    tail=st.integers(0, 3),
    limit=st.integers(2, 80),
    policy=st.sampled_from(["cut", "share"]),
)
def test_what_is_left_of_an_answer_is_its_beginning(pairs, tail, limit, policy):
    whole = example(*pairs, tail=tail)
    left = shorten(policy, talk(("user", "x")), [whole], limit, renders)
    (short,) = left.examples
    if short is None:
        assert left.dropped == ALL_CUT
        return
    assert short.num_tokens == min(limit, whole.num_tokens) or policy == "share"
    assert short.num_tokens <= limit
    assert short.weight[0] == 0
    spans = [whole.input_ids[a:b].tolist() for a, b in whole.trained_spans()]
    for number, (a, b) in enumerate(short.trained_spans()):
        assert short.input_ids[a:b].tolist() == spans[number][: b - a]
    mask = kept_mask(policy, whole, short, limit)
    assert whole.input_ids[mask].tolist() == short.input_ids.tolist()


CALL = ToolCall("f", {}, "c1")


def roles(conversation: Conversation, gone: list[list[int]]) -> list[str]:
    return ["".join(conversation.messages[i].role[0] for i in group) for group in gone]


def test_oldest_leaves_out_exchanges_and_then_what_stands_before_the_reply():
    calls = Message("assistant", "", tool_calls=(CALL,))
    result = Message("tool", "r", tool_call_id="c1")
    said = talk(
        ("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("user", "d"), calls, result,
        ("assistant", "e"), ("user", "f"), calls, result, calls, result, ("assistant", "g"), ("user", "h"),
    )  # fmt: skip
    gone = groups_to_leave_out(said.messages)
    assert gone == [[1, 2], [3, 4, 5, 6, 7], [9, 10], [11, 12]]
    assert roles(said, gone) == ["ua", "uuata", "at", "at"]


def test_a_result_that_comes_late_keeps_its_call():
    late = Message("tool", "r", tool_call_id="c1")
    said = talk(
        ("user", "a"), Message("assistant", "", tool_calls=(CALL,)), ("user", "b"), ("assistant", "w"), late,
        ("assistant", "c"), ("user", "d"), ("assistant", "e"),
    )  # fmt: skip
    assert groups_to_leave_out(said.messages) == [[0, 1, 2, 3, 4, 5]]
    alone = talk(*said.messages[:6])
    assert groups_to_leave_out(alone.messages) == []


@pytest.mark.parametrize(
    "said", [[("user", "a")], [("assistant", "a")], [("user", "a"), ("assistant", "b")], []]
)
def test_there_may_be_nothing_to_leave_out(said):
    assert groups_to_leave_out(talk(*said).messages) == []
    assert groups_to_leave_out((Message("system", "s", weight=1.0),)) == []


messages = st.lists(
    st.sampled_from("suact").map(
        {
            "s": Message("system", "rule"),
            "u": Message("user", "ask"),
            "a": Message("assistant", "reply"),
            "c": Message("assistant", "", tool_calls=(CALL,)),
            "t": Message("tool", "r", tool_call_id="c1"),
        }.__getitem__
    ),
    max_size=14,
)


@given(messages)
def test_groups_hold_each_place_once_and_part_no_call_from_its_result(said):
    gone = groups_to_leave_out(said)
    places = [place for group in gone for place in group]
    assert places == sorted(set(places))
    assert not any(said[place].role == "system" for place in places)
    learned = [i for i, one in enumerate(said) if one.role == "assistant"]
    users = [i for i in range(max(learned, default=-1)) if said[i].role == "user"]
    assert not {*learned[-1:], *users[-1:]} & set(places)
    for place, one in enumerate(said):
        calls = [i for i in range(place) if said[i].tool_calls]
        if one.role == "tool" and calls:
            owner = {place: n for n, group in enumerate(gone) for place in group}
            assert owner.get(calls[-1]) == owner.get(place)


words = st.text("ab \n", min_size=0, max_size=30)
conversations = st.lists(
    st.tuples(st.booleans(), st.lists(st.tuples(words, words), min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


def rows(drawn) -> list[Row]:
    found = []
    for number, (has_system, exchanges) in enumerate(drawn, 1):
        said = [{"role": "system", "content": "be brief"}] * has_system
        for asked, replied in exchanges:
            said.append({"role": "user", "content": asked})
            said.append({"role": "assistant", "content": replied})
        found.append(Row({"messages": said}, Origin("rows.jsonl", number)))
    return found


def road(policy: str, limit: int, renderer: Renderer = RENDERER) -> Road:
    return Road(DataSection(too_long=policy), renderer, max_length=limit, file="rows.jsonl")


@given(conversations, st.integers(2, 90), st.sampled_from([*POLICIES, "drop"]))
def test_no_row_is_longer_nothing_more_is_trained_and_the_ledger_adds_up(drawn, limit, policy):
    made = road(policy, limit)
    found = list(made.lead(rows(drawn)))
    ledger = made.ledger
    assert ledger.read == len(found) == ledger.kept + ledger.num_dropped
    before = after = trained_before = trained_after = changed = 0
    for row in found:
        whole = trained_texts(row.uncut, RENDERER.tokenizer)
        before += sum(one.num_tokens for one in row.uncut)
        trained_before += sum(one.num_trained_tokens for one in row.uncut)
        assert bool(row.examples) != bool(row.dropped)
        for one in row.examples:
            assert one.num_tokens <= limit
            assert one.num_trained_tokens > 0
            after += one.num_tokens
            trained_after += one.num_trained_tokens
        texts = trained_texts(row.examples, RENDERER.tokenizer)
        if policy == "oldest" and texts:
            assert texts == whole[-len(texts) :]
        for number, text in enumerate(texts if policy != "oldest" else []):
            assert whole[number].startswith(text)
            # an end is learned only where the answer ends
            assert (text == whole[number]) == text.endswith("<|im_end|>")
        changed += bool(row.shortened) and not row.dropped
    assert ledger.tokens == after == before - ledger.lost_tokens
    assert ledger.trained_tokens == trained_after == trained_before - ledger.lost_trained_tokens
    assert ledger.cut.count == changed
    assert (ledger.lost_tokens > 0) == ("the length limit" in ledger.sentence())


@pytest.mark.parametrize("policy", [*POLICIES, "drop"])
def test_a_row_at_the_limit_stays_whole_and_one_beyond_it_does_not(policy):
    said = rows([(True, [("a b", "b"), ("a a", "b b")])])
    (whole,) = RENDERER.render(
        talk(*((one["role"], one["content"]) for one in said[0].value["messages"]))
    )
    for extra in (0, 1):
        (row,) = road(policy, whole.num_tokens + extra).lead(said)
        assert row.shortened == ()
        assert row.examples[0].input_ids.tolist() == whole.input_ids.tolist()
    made = road(policy, whole.num_tokens - 1)
    (row,) = made.lead(said)
    assert made.ledger.lost_tokens > 0
    assert sum(one.num_tokens for one in row.examples) < whole.num_tokens


def test_oldest_leaves_out_as_little_as_it_can():
    said = [("system", "be brief")]
    for n in range(8):
        said += [("user", f"question {n}"), ("assistant", f"answer {n}")]
    (whole,) = renders(talk(*said))
    for gone in range(8):
        (short,) = renders(talk(said[0], *said[1 + 2 * gone :]))
        left = shorten("oldest", talk(*said), [whole], short.num_tokens, renders)
        assert [one.input_ids.tolist() for one in left.examples] == [short.input_ids.tolist()]
        mask = kept_mask("oldest", whole, left.examples[0], short.num_tokens)
        assert whole.input_ids[mask].tolist() == short.input_ids.tolist()
    left = shorten("oldest", talk(*said), [whole], short.num_tokens - 1, renders)
    assert (left.examples, left.dropped) == ((None,), STILL_TOO_LONG)


FORGETS = CHATML.replace(
    "message.content", "(message.content if loop.last else message.content.replace('T', ''))"
)


def test_where_each_turn_is_an_example_of_its_own_those_that_fit_stay():
    tokenizer, template = with_template(byte_level(), FORGETS, eos_token="<|im_end|>")
    renderer = Renderer(tokenizer, template)
    said = []
    for n in range(4):
        said += [("user", f"question {n}"), ("assistant", f"T answer {n}")]
    whole = renderer.render(talk(*said))
    assert len(whole) == 4
    limit = whole[2].num_tokens
    left = shorten("oldest", talk(*said), whole, limit, renderer.render)
    assert left.dropped == ""
    assert left.examples[:3] == tuple(whole[:3])
    assert left.examples[3].num_tokens <= limit
    assert trained_texts(left.examples, tokenizer) == trained_texts(whole, tokenizer)


def test_a_template_that_refuses_the_shorter_row_drops_it():
    tokenizer, template = family("llama2-first")
    renderer = Renderer(tokenizer, template)
    made = road("oldest", 25, renderer)
    (row,) = made.lead(rows([(False, [("a" * 30, "b"), ("a" * 30, "b")])]))
    assert row.dropped == STILL_TOO_LONG
    assert made.ledger.sentence().startswith(f"read 1 = kept 0 + dropped 1 ({STILL_TOO_LONG}: 1)")


def test_text_has_no_turns_to_leave_out():
    made = road("oldest", 3)
    (row,) = made.lead([Row({"text": "a b a b a b a b"}, ORIGIN)])
    assert row.dropped == NO_TURNS
    for policy in ("cut", "share"):
        (row,) = road(policy, 3).lead([Row({"text": "a b a b a b a b"}, ORIGIN)])
        assert [one.num_tokens for one in row.examples] == [3]


def test_rows_of_single_tokens_are_no_longer_than_any_limit():
    for policy in POLICIES:
        made = road(policy, 2)
        found = list(made.lead([Row({"input_ids": [n]}, Origin("r", n)) for n in (1, 2, 3)]))
        assert all(row.shortened == () for row in found)
        made = road(policy, 2)
        found = list(made.lead([Row({"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, ORIGIN)]))
        assert made.ledger.lost_tokens == (3 if policy == "oldest" else 1)
