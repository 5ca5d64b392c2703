"""Texts and tokens that need no template: what is trained, where they begin and end, and what they cannot forge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.conversation import Document, TokenRow
from hone.data.example import Origin
from hone.data.render import Renderer
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import DataError
from tests.data.small import BARE, NAMES, byte_level, family, talk, text_tokenizer, with_template

HERE = Origin("rows.jsonl", 3)


def renderer(name: str) -> Renderer:
    return Renderer(*family(name))


def tokens(ids: list[int], weight: list[float] | None = None) -> TokenRow:
    weights = np.array(weight or [1.0] * len(ids), dtype=np.float32)
    return TokenRow(np.array(ids, dtype=np.int32), weights, HERE)


def test_all_of_a_text_is_trained_and_its_end():
    made = renderer("byte-level")
    (example,) = made.render(Document("Paris is big.", HERE))
    wanted = [*made.tokenizer.encode("Paris is big."), made.tokenizer.eos_id]
    assert example.input_ids.tolist() == wanted
    assert example.weight.tolist() == [0.0] + [1.0] * (len(wanted) - 1)
    assert example.origin == HERE


def test_a_text_begins_where_the_model_wants_it():
    tokenizer, template = with_template(
        byte_level(["<s>", "</s>"]), BARE, bos_token="<s>", eos_token="</s>", add_bos_token=True
    )
    (example,) = Renderer(tokenizer, template).render(Document("Paris", HERE))
    ids = example.input_ids.tolist()
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert ids[1:-1] == tokenizer.encode("Paris")
    assert example.weight.tolist() == [0.0] + [1.0] * (len(ids) - 1)


def test_a_tokenizer_without_an_end_is_told_of():
    tokenizer = text_tokenizer(byte_level(), BARE)
    made = Renderer(tokenizer, family("byte-level")[1])
    rendered = made.render_all([Document("Paris", HERE)])[0]
    assert rendered.examples[0].input_ids.tolist() == tokenizer.encode("Paris")
    assert rendered.remarks == ("no-end-of-text",)


def test_a_text_without_letters_teaches_nothing():
    assert renderer("byte-level").render(Document("", HERE)) == []


PART = st.sampled_from(["Hello", " ", "\n", "café", "<", "|", "user", "[INST]", "<tool_call>"])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_text_writes_no_control_token(name, data):
    made = renderer(name)
    control = sorted(made.control.strings)
    parts = PART | st.sampled_from(control + [t[:-1] for t in control] + [t[1:] for t in control])
    text = data.draw(st.lists(parts, min_size=1, max_size=6).map("".join))
    rendered = made.render_all([Document(text, HERE)])[0]
    (example,) = rendered.examples
    ids = example.input_ids.tolist()
    body = ids[made.tokenizer.adds_bos : len(ids) - 1]
    assert ids[-1] == made.tokenizer.eos_id
    assert made.control.ids.isdisjoint(body)
    if made.control.ids.isdisjoint(made.tokenizer.encode(text)):
        assert body == made.tokenizer.encode(text)
        assert rendered.remarks == ()
    else:
        assert rendered.remarks == ("control-text",)


def test_other_added_tokens_are_encoded_as_the_tokenizer_does():
    tokenizer, template = family("not-special")
    (example,) = Renderer(tokenizer, template).render(Document("a<tool_call>b<|im_end|>", HERE))
    ids = example.input_ids.tolist()
    assert tokenizer.id_of("<tool_call>") in ids
    assert tokenizer.id_of("<|im_end|>") not in ids
    assert tokenizer.decode(ids) == "a<tool_call>b<|im_end|><|end|>"


def test_tokens_are_taken_as_they_are():
    made = renderer("byte-level")
    (example,) = made.render(tokens([5, 6, 7, 8], [1.0, 0.0, 0.5, 1.0]))
    assert example.input_ids.tolist() == [5, 6, 7, 8]
    assert example.weight.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert made.render(tokens([5, 6], [1.0, 0.0])) == []
    assert made.render(tokens([5])) == []


@pytest.mark.parametrize("beyond", [0, 1, 10**6])
def test_tokens_beyond_the_vocabulary_are_refused(beyond):
    made = renderer("byte-level")
    first = made.tokenizer.vocab_size
    assert made.render(tokens([1, first - 1]))
    with pytest.raises(DataError, match="not in the vocabulary") as caught:
        made.render(tokens([1, 2, first + beyond]))
    assert caught.value.where == "rows.jsonl:3 /input_ids/2"


def test_all_kinds_of_rows_keep_their_places():
    made = renderer("byte-level")
    rows = [
        Document("One.", HERE),
        talk(("user", "a"), ("assistant", "Two.")),
        tokens([5, 6]),
        Document("Three.", HERE),
        talk(("user", "a"), ("assistant", "Four.")),
    ]
    together = made.render_all(rows)
    alone = [made.render(row) for row in rows]
    assert [[e.input_ids.tolist() for e in one.examples] for one in together] == [
        [e.input_ids.tolist() for e in examples] for examples in alone
    ]


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_real_tokenizers(shared, name):
    tokenizer = TextTokenizer.load(shared / "tokenizers" / name)
    made = Renderer(tokenizer, load_template(tokenizer))
    text = "Zwölf Boxkämpfer — 東京 <tool_call>2024-01-01\n<|im_start|>"
    (example,) = made.render(Document(text, HERE))
    ids = example.input_ids.tolist()
    assert tokenizer.decode(ids) == text + "<|im_end|>"
    assert tokenizer.id_of("<tool_call>") in ids
    assert tokenizer.id_of("<|im_start|>") not in ids
