"""Rows of columns: what each says, in which order, and what is refused."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.conversation import Document
from hone.data.formats import RowFormat
from hone.data.reader import RowReader
from hone.errors import ConfigError
from tests.data.rows import read, refusal, said

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def test_alpaca():
    form = RowFormat()
    found = read({"instruction": "Add.", "input": "1 2", "output": "3"}, form)
    assert form.shape == "alpaca"
    assert said(found) == [("user", "Add.\n1 2"), ("assistant", "3")]
    assert said(read({"instruction": "Add.", "input": "", "output": "3"}, form))[0][1] == "Add."
    assert said(read({"instruction": "Add.", "output": "3"}, form))[0][1] == "Add."
    assert said(read({"instruction": "", "input": "1 2", "output": "3"}, form))[0][1] == "1 2"
    assert found.remarks == ()


@given(said_before=st.lists(st.tuples(TEXT, TEXT), max_size=3), asked=TEXT, more=TEXT, reply=TEXT)
def test_alpaca_says_history_then_question_then_answer(said_before, asked, more, reply):
    row = {
        "instruction": asked,
        "input": more,
        "output": reply,
        "system": "s",
        "history": [list(pair) for pair in said_before],
    }
    texts = [text for pair in said_before for text in pair]
    assert said(read(row)) == [
        ("system", "s"),
        *zip(("user", "assistant") * len(said_before), texts, strict=True),
        ("user", f"{asked}\n{more}"),
        ("assistant", reply),
    ]
    assert all(one.weight is None for one in read(row).messages)


def test_alpaca_without_what_is_optional():
    row = {"instruction": "a", "output": "b", "input": None, "system": "", "history": None}
    assert said(read({**row, "tools": "[]"})) == [("user", "a"), ("assistant", "b")]
    assert read({"instruction": "", "output": "b"}).remarks == ("empty-prompt",)
    assert read({"instruction": "a", "output": ""}).remarks == ("empty-assistant",)


@pytest.mark.parametrize(
    ("row", "pointer", "words"),
    [
        ({"output": None}, "/output", "null"),
        ({"output": 7}, "/output", "number 7"),
        ({"instruction": ["a", 1]}, "/instruction/1", "number 1"),
        ({"input": {"a": 1}}, "/input", "an object"),
        ({"history": "a"}, "/history", "list of pairs"),
        ({"history": [["a"]]}, "/history/0", "a list of 1"),
        ({"history": [["a", "b"], ["a", None]]}, "/history/1/1", "null"),
        ({"history": [{"q": "a"}]}, "/history/0", "an object"),
        ({"system": 1}, "/system", "number 1"),
    ],
)
def test_alpaca_refused(row, pointer, words):
    assert words in refusal({"instruction": "a", "output": "b", **row}, pointer).what


@pytest.mark.parametrize(
    ("question", "answer"),
    [("question", "answer"), ("query", "response"), ("instruction", "response")],
)
def test_questions_and_answers_are_recognised_and_named(question, answer):
    form = RowFormat()
    found = read({question: "q", answer: "a", "system": "s"}, form)
    assert form.shape == f"{question}-{answer}"
    assert said(found) == [("system", "s"), ("user", "q"), ("assistant", "a")]
    assert refusal({question: "q", answer: 1}, f"/{answer}")
    for key in ("input", "context"):
        error = refusal({question: "q", answer: "a", key: "c"}, f"/{key}")
        columns = {"instruction": question, "input": key, "output": answer}
        written = ", ".join(f"{ours}: {theirs}" for ours, theirs in columns.items())
        assert f"data.columns='{{{written}}}'" in error.remedy
        other = read({question: "q", answer: "a", key: "c"}, columns=columns)
        assert said(other) == [("user", "q\nc"), ("assistant", "a")]


def test_a_ready_remedy_for_other_names():
    error = refusal({"input": "q", "output": "a"})
    assert "data.columns='{user: input, assistant: output}'" in error.remedy
    assert said(
        read({"input": "q", "output": "a"}, columns={"user": "input", "assistant": "output"})
    )
    assert "{user: prompt, assistant: response}" in refusal({"prompt": "q", "response": "a"}).remedy


def test_pairs():
    form = RowFormat()
    assert said(read({"pair": ["q", {"answer": "a"}]}, form)) == [("user", "q"), ("assistant", "a")]
    assert form.shape == "pairs"
    assert said(read({"pair": ["q", "a"]}, form)) == [("user", "q"), ("assistant", "a")]
    assert read({"pair": ["q", {"answer": "a", "id": 1}]}).remarks == ("unknown-key:1/id",)


@pytest.mark.parametrize(
    ("pair", "pointer", "words"),
    [
        (["q", 1], "/1", "number 1"),
        ([1, "a"], "/0", "number 1"),
        (["q", {"anser": "a"}], "/1", "found 'anser'"),
        (["q", {}], "/1", "no keys"),
        (["q", {"answer": None}], "/1/answer", "null"),
        (["q"], "", "a list of 1"),
        ("qa", "", "the text 'qa'"),
    ],
)
def test_pairs_refused(pair, pointer, words):
    assert words in refusal({"pair": pair}, pointer).what


def test_plain_text():
    form = RowFormat()
    found = read({"text": "Once.", "url": "x"}, form)
    assert form.shape == "text"
    assert isinstance(found, Document)
    assert (found.text, found.remarks) == ("Once.", ("unknown-key:url",))
    assert read({"content": "Once."}, columns={"text": "content"}).text == "Once."
    assert refusal({"text": 1}, "/text")
    assert found.content_hash() == read({"text": "Once."}, line=9).content_hash()
    assert found.content_hash() != read({"text": "Twice."}).content_hash()


def test_a_completion_of_nothing_is_text():
    form = RowFormat()
    assert read({"completion": "Once."}, form).text == "Once."
    assert form.shape == "completion"


@pytest.mark.parametrize("other", ["promt", "input", "question", "instruction", "target"])
@pytest.mark.parametrize("key", ["text", "completion"])
def test_text_beside_what_looks_like_its_other_side_is_not_taken_alone(key, other):
    assert "shape of the rows is not known" in refusal({key: "a", other: "b"}).what
    assert read({key: "a", other: "b"}, name=key).remarks == (f"unknown-key:{other}",)


def test_a_shape_can_be_forced():
    row = {"instruction": "a", "output": "b", "text": "c", "messages": []}
    assert said(read(row, name="alpaca")) == [("user", "a"), ("assistant", "b")]
    assert read(row, name="text").text == "c"
    assert refusal(row, "/messages")


def test_columns_of_what_a_row_may_lack():
    form = RowFormat(columns={"input": "context"})
    assert said(read({"instruction": "a", "output": "b"}, form))[0][1] == "a"
    assert said(read({"instruction": "a", "context": "c", "output": "b"}, form))[0][1] == "a\nc"
    with pytest.raises(ConfigError, match="names 'labels'"):
        read({"instruction": "a", "output": "b"}, columns={"labels": "x"})


@pytest.mark.parametrize("key", ["images", "image", "audios", "videos"])
def test_rows_with_media_are_refused_by_name(key):
    row = {"instruction": "a", "output": "b"}
    assert key in refusal({**row, key: ["x.png"]}, f"/{key}").what
    for empty in (None, [], ""):
        assert read({**row, key: empty}).remarks == ()


def test_a_mask_where_none_is_read_is_refused():
    assert refusal({"instruction": "a", "output": "b", "loss_mask": "all"}, "/loss_mask")
    assert read({"instruction": "a", "output": "b", "loss_mask": None}).messages


def test_real_questions(shared):
    form = RowFormat()
    rows = list(islice(RowReader(shared / "data" / "gsm8k_train.jsonl"), 5))
    for row in rows:
        found = form.read(row)
        assert said(found) == [("user", row.value["question"]), ("assistant", row.value["answer"])]
    assert form.shape == "question-answer"
