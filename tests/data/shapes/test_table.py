"""The table of shapes and the settings say the same."""

from __future__ import annotations

import pytest

from hone.config.fields import settings
from hone.data.formats import RowFormat
from hone.data.shapes.table import SHAPES
from tests.data.rows import A, U, read

ONE_OF_EACH = {
    "messages": {"messages": [U, A]},
    "prompt-completion": {"prompt": "q", "completion": "a"},
    "turns": {"user": "q", "assistant": "a"},
    "alpaca": {"instruction": "q", "output": "a"},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "conversations": {"conversations": [U, A]},
    "log": {"input": {"messages": [U]}, "output": "a"},
    "question-answer": {"question": "q", "answer": "a"},
    "query-response": {"query": "q", "response": "a"},
    "instruction-response": {"instruction": "q", "response": "a"},
    "pairs": {"pair": ["q", "a"]},
    "tokens": {"input_ids": [1, 2]},
    "text": {"text": "a"},
    "completion": {"completion": "a"},
}


def test_every_shape_can_be_forced_by_its_name():
    assert {"auto", *SHAPES} == set(settings()["data.format"].choices)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_recognised(name):
    form = RowFormat()
    found = read(ONE_OF_EACH[name], form)
    assert form.shape == name
    assert found.content_hash() == read(ONE_OF_EACH[name], name=name).content_hash()
    assert found.remarks == ()
