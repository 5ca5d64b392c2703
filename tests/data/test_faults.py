"""Faulty and strange rows, from the file to the Examples: refused by name, dropped and counted, or kept as written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.config.sections import DataSection
from hone.data.conversation import Conversation
from hone.data.formats import RowFormat
from hone.data.prepare import Prepared, prepare
from hone.data.reader import RowReader
from hone.data.render import Renderer, trained_texts
from hone.errors import DataError
from tests.data.rows import A, S, U
from tests.data.small import family

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "r"}


def file(tmp_path: Path, rows: list[Any]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


def prepared(tmp_path: Path, rows: list[Any]) -> Prepared:
    tokenizer, template = family("byte-level")
    return prepare(
        DataSection(path=file(tmp_path, rows)),
        tokenizer=tokenizer,
        template=template,
        max_length=10**6,
        cache_dir=None,
        say=lambda event, told: None,
    )


def messages(*said: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [*said], **more}


NOTHING = {
    "mask none": messages(U, A, loss_mask="none"),
    "mask of no role": messages(U, A, loss_mask={"type": "roles", "assistant": False}),
    "mask of nobody": messages(U, A, loss_mask=[False, False]),
    "weight 0 everywhere": messages({**U, "weight": 0}, {**A, "weight": 0}, U, {**A, "weight": 0}),
    "train false everywhere": messages(U, {**A, "train": False}),
}


@pytest.mark.parametrize("name", NOTHING)
def test_a_row_without_anything_to_learn_is_dropped_and_counted(tmp_path, name):
    ledger = prepared(tmp_path, [messages(U, A), NOTHING[name], messages(U, A)]).ledgers[0]
    assert ledger.sentence() == "read 3 = kept 2 + dropped 1 (nothing to train on: 1)"
    assert ledger.dropped["nothing to train on"].lines == [2]


@pytest.mark.parametrize(
    "row", [{"input_ids": [5, 6], "labels": [-100, -100]}, {"input_ids": [5]}, {"text": ""}]
)
def test_so_is_one_of_tokens_or_text(tmp_path, row):
    good = {"input_ids": [5, 6, 7]} if "input_ids" in row else {"text": "Paris"}
    ledger = prepared(tmp_path, [good, row]).ledgers[0]
    assert ledger.dropped["nothing to train on"].lines == [2]


def test_a_file_without_anything_to_learn_is_refused(tmp_path):
    with pytest.raises(DataError, match="nothing to train on: 5"):
        prepared(tmp_path, [*NOTHING.values()])


KEPT = {
    "assistant first": (messages(A, U, A), ()),
    "assistants side by side": (messages(U, A, A), ()),
    "no user": (messages(S, A), ()),
    "assistant alone": (messages(A), ()),
    "ends with the user": (messages(U, A, U), ()),
    "system in the middle": (messages(U, A, S, U, A), ()),
    "empty assistant": (messages(U, {**A, "content": ""}), ("empty-assistant",)),
    "result without call": (messages(U, RESULT, A), ("result-without-call",)),
    "result without id or call": (
        messages(U, {"role": "tool", "content": "r"}, A),
        ("result-without-call",),
    ),
    "call without result": (messages(U, CALLING, U, A), ("call-without-result",)),
    "one of two results": (
        messages(U, {**CALLING, "tool_calls": [CALL, {**CALL, "id": "d"}]}, RESULT, A),
        ("call-without-result",),
    ),
    "call at the end": (messages(U, CALLING), ()),
    "older call and result": (
        messages(
            U,
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "f", "arguments": "{}"},
            },
            {"role": "function", "name": "f", "content": "r"},
            A,
        ),
        (),
    ),
    "results without ids": (
        messages(
            U,
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}],
            },
            {"role": "tool", "content": "1"},
            {"role": "tool", "content": "2"},
            A,
        ),
        (),
    ),
    "arguments that are no JSON": (
        messages(U, {"role": "assistant", "function_call": {"name": "f", "arguments": "a=1"}}),
        ("arguments-not-json",),
    ),
    "two calls of one id": (
        messages(U, {**CALLING, "tool_calls": [CALL, CALL]}, RESULT, A),
        ("duplicate-call-id",),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_strange_row_is_kept_as_written_and_told_of(tmp_path, name):
    row, remarks = KEPT[name]
    ledger = prepared(tmp_path, [row]).ledgers[0]
    assert ledger.sentence() == "read 1 = kept 1 + dropped 0"
    assert set(ledger.notices) - {"calls-not-written"} == set(remarks)
    assert all(tally.lines == [1] for tally in ledger.notices.values())


REFUSED = {
    "unknown role": (messages(U, {**A, "role": "bot"}), "/messages/1/role"),
    "null messages": ({"messages": None}, "/messages"),
    "null message": (messages(U, None), "/messages/1"),
    "text for a message": (messages(U, "ho"), "/messages/1"),
    "number for text": (messages(U, {**A, "content": 1e5}), "/messages/1/content"),
    "truth for text": (messages(U, {**A, "content": True}), "/messages/1/content"),
    "text for a weight": (messages(U, {**A, "weight": "1"}), "/messages/1/weight"),
    "unknown key": (messages(U, {**A, "wieght": 0}), "/messages/1"),
    "image": (
        messages({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, A),
        "/messages/0/content/0",
    ),
    "sound": (
        messages({"role": "user", "content": [{"type": "input_audio"}]}, A),
        "/messages/0/content/0",
    ),
    "image without a type": (
        messages({"role": "user", "content": [{"image": "x"}]}, A),
        "/messages/0/content/0",
    ),
    "film": (messages(U, A, videos=["x.mp4"]), "/videos"),
    "another shape": ({"prompt": "q", "completion": "a"}, ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_row_among_good_ones_is_refused_with_its_line(tmp_path, name):
    row, pointer = REFUSED[name]
    with pytest.raises(DataError) as caught:
        prepared(tmp_path, [messages(U, A), messages(U, A), row])
    assert caught.value.where.endswith(f"rows.jsonl:3{' ' * bool(pointer)}{pointer}")
    assert caught.value.remedy


def test_extra_keys_are_told_of_on_the_fast_road_and_on_the_careful_one(tmp_path):
    rows = [messages(U, A, id=1), messages(U, A, id=2), messages(U, {**A, "weight": 1}, id=3)]
    ledger = prepared(tmp_path, [*rows, messages(U, A), messages(U, A, id=5)]).ledgers[0]
    assert ledger.notices["unknown-key:id"].lines == [1, 2, 3, 5]
    assert ledger.kept == 5


TEXTS = ["2024-01-01", "001", "true", "1e5", "null", "NaN", "", " x ", "[1]", '{"a": 1}', "1_000"]
SHAPED = {
    "messages": lambda text: messages(U, {"role": "assistant", "content": text}),
    "prompt-completion": lambda text: {"prompt": "q", "completion": text},
    "turns": lambda text: {"user": "q", "assistant": text},
    "alpaca": lambda text: {"instruction": "q", "output": text},
    "sharegpt": lambda text: {
        "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": text}]
    },
    "conversations": lambda text: {
        "conversations": [U, {"role": "assistant", "content": text}],
        "system": "s",
    },
    "log": lambda text: {"input": {"messages": [U]}, "output": text},
    "question-answer": lambda text: {"question": "q", "answer": text},
    "query-response": lambda text: {"query": "q", "response": text},
    "instruction-response": lambda text: {"instruction": "q", "response": text},
    "pairs": lambda text: ["q", {"answer": text}],
    "text": lambda text: {"text": text},
    "completion": lambda text: {"completion": text},
}


def trained(tmp_path: Path, rows: list[Any], shape: str) -> list[str]:
    made = Renderer(*family("byte-level"))
    form = RowFormat()
    contents = [form.read(row) for row in RowReader(file(tmp_path, rows))]
    assert form.shape == shape
    return [
        trained_texts(one.examples, made.tokenizer)[0]
        if isinstance(content, Conversation)
        else made.tokenizer.decode(one.examples[0].input_ids.tolist())
        for content, one in zip(contents, made.render_all(contents), strict=True)
    ]


@pytest.mark.parametrize("shape", SHAPED)
def test_what_looks_like_a_date_or_a_number_reaches_the_tokenizer_as_it_is(tmp_path, shape):
    texts = [text for text in TEXTS if text or shape not in ("text", "completion")]
    rows = [SHAPED[shape](text) for text in texts]
    assert trained(tmp_path, rows, shape) == [text + "<|im_end|>" for text in texts]


@pytest.mark.parametrize("shape", SHAPED)
@pytest.mark.parametrize("value", [20240101, 1.0, True, 10**30])
def test_what_is_a_number_is_refused_and_not_made_text(tmp_path, shape, value):
    with pytest.raises(DataError) as caught:
        trained(tmp_path, [SHAPED[shape](value)], shape)
    assert "rows.jsonl:1 /" in caught.value.where
    assert caught.value.remedy


@settings(max_examples=30)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=3
    )
)
@pytest.mark.parametrize("shape", ["messages", "alpaca", "sharegpt", "pairs", "text", "log"])
def test_every_shape_trains_exactly_what_was_answered(tmp_path_factory, shape, texts):
    folder = tmp_path_factory.mktemp("rows")
    rows = [SHAPED[shape](text) for text in texts]
    assert trained(folder, rows, shape) == [text + "<|im_end|>" for text in texts]
