"""Plain rows: whatever people name a question and its answer; conversations whole; nothing changed unsaid."""

from __future__ import annotations

import pytest

from hone.data.example import Origin
from hone.data.plain_rows import DEFAULT_SYSTEM, Tidying, read_plain
from hone.errors import DataError

ORIGIN = Origin("raw.jsonl", 3)
DOCUMENTED = {
    "system": "s",
    "conversations": [
        {"role": "user", "content": "What is Python?"},
        {"role": "assistant", "content": "A language."},
        {"role": "user", "content": "Its features?"},
        {"role": "assistant", "content": "Many."},
    ],
}


def said(row) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in read_plain(row, ORIGIN).said.messages]


QA = [("user", "q"), ("assistant", "a")]


@pytest.mark.parametrize("ask", ["user", "question", "prompt", "input", "instruction", "query"])
@pytest.mark.parametrize(
    "answer", ["assistant", "answer", "response", "target", "output", "completion"]
)
def test_names_of_question_and_answer(ask, answer) -> None:
    assert said({ask: "q", answer: "a"}) == QA
    found = read_plain({"id": 1, ask: "q", answer: "a", "system": "s"}, ORIGIN)
    assert [one.role for one in found.said.messages] == ["system", "user", "assistant"]
    assert found.left_out == ("id",)
    known = (ask, answer) in (("user", "assistant"), ("prompt", "completion"))
    assert found.mapped == (() if known else (f"{ask} and {answer}",))


def test_pairs() -> None:
    for answer in ("a", {"answer": "a"}, {"output": "a", "score": 1}):
        assert said({"pair": ["q", answer]}) == QA


def test_an_instruction_keeps_its_input() -> None:
    row = {"instruction": "Translate", "input": "hei", "output": "hi"}
    assert said(row)[0] == ("user", "Translate\nhei")
    assert said(row | {"input": " "})[0] == ("user", "Translate")
    assert said(row | {"history": [["q", "a"]]})[:2] == QA


def test_conversations_stay_whole() -> None:
    assert [role for role, _ in said(DOCUMENTED)] == ["system", *["user", "assistant"] * 2]
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert said({"conversations": turns}) == QA
    first = {"from": "system", "value": "turn"}
    assert said({"conversations": [first, *turns], "system": "column"})[0] == ("system", "turn")
    many = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}] * 3
    }
    assert len(said(many)) == 6


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"question": "q"}, "no column holds the answer"),
        ({"answer": "a"}, "no column holds the question"),
        ({}, "no column"),
        ({"question": 3, "answer": "a"}, "text is wanted"),
        ({"pair": ["q", {"score": 1}]}, "text is wanted"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "unknown role"),
        ({"conversations": []}, "empty"),
        ({"instruction": "q", "output": "a", "history": ["q"]}, "list of pairs"),
    ],
)
def test_refused(row, what) -> None:
    with pytest.raises(DataError, match=what) as caught:
        read_plain(row, ORIGIN)
    assert "raw.jsonl:3" in str(caught.value.where)


def tidy(row, **how):
    conversation, done = Tidying(**how).tidy(read_plain(row, ORIGIN))
    return [(one.role, one.content) for one in conversation.messages], done


def test_tidying() -> None:
    assert tidy({"user": " q\n", "assistant": "a"}) == (
        [("system", DEFAULT_SYSTEM), *QA],
        ["spaces at the ends of a text were removed", "the default system text was added"],
    )
    assert tidy({"system": "s", "user": "q", "assistant": "a"}) == ([("system", "s"), *QA], [])
    assert tidy({"user": "q", "assistant": "a"}, system="") == (QA, [])
    blank = tidy({"system": " ", "user": "q", "assistant": "a"})
    assert blank[0][0] == ("system", DEFAULT_SYSTEM)
    long = {"system": "sss", "user": "qqqq", "assistant": "aaa"}
    assert tidy(long, max_characters=2) == (
        [("system", "sss"), ("user", "qq"), ("assistant", "aa")],
        [
            "a text of the user was cut to 2 characters",
            "a text of the assistant was cut to 2 characters",
        ],
    )
    with pytest.raises(DataError, match="the text of the user is blank"):
        tidy({"user": " ", "assistant": "a"})


def test_turns_of_a_conversation_are_not_trimmed() -> None:
    row = {"messages": [{"role": "user", "content": " q"}, {"role": "assistant", "content": "a\n"}]}
    assert tidy(row, system="")[0] == [("user", " q"), ("assistant", "a\n")]


def test_no_text_is_cut_unasked() -> None:
    assert len(tidy({"user": "q" * 50_000, "assistant": "a"})[0][1][1]) == 50_000
