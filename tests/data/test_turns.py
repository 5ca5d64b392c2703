"""Turns of other roles than the assistant's, where a row asks for them: what they say, and the end of their turn."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.conversation import Message, ToolCall
from hone.data.render import Renderer, trained_texts
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from tests.data.small import NAMES, family, talk

END = "<|im_end|>"


def renderer(name: str, **how) -> Renderer:
    return Renderer(*family(name), **how)


def learned(role: str, text: str, weight: float = 1.0) -> Message:
    return Message(role, text, weight=weight)


def test_what_another_role_says_is_trained_with_its_end():
    made = renderer("byte-level")
    conversation = talk(
        learned("system", "Be brief."),
        ("user", "One?"),
        ("assistant", "Yes."),
        learned("user", "Two?", 0.5),
    )
    (example,) = made.render(conversation)
    assert trained_texts([example], made.tokenizer) == [
        "Be brief." + END,
        "Yes." + END,
        "Two?" + END,
    ]
    assert set(example.weight.tolist()) == {0.0, 0.5, 1.0}
    assert made.tokenizer.decode(example.input_ids.tolist()) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n"
    )


def test_the_last_reply_alone_when_the_settings_say_so():
    made = renderer("byte-level", train_on="last")
    conversation = talk(learned("user", "a"), ("assistant", "One."), learned("user", "b"))
    rendered = made.render_all([conversation])[0]
    assert trained_texts(rendered.examples, made.tokenizer) == ["One." + END]
    assert rendered.remarks == ("other-roles-left-out",)


def test_a_turn_without_an_end_of_its_own_ends_with_what_it_says():
    made = renderer("llama2-first")
    rendered = made.render_all([talk(learned("user", "Paris?"), ("assistant", "Yes."))])[0]
    texts = trained_texts(rendered.examples, made.tokenizer)
    assert [text.strip() for text in texts] == ["Paris?", "Yes. </s>"]
    assert "no-end-of-turn" not in rendered.remarks


def test_a_developer_and_an_empty_turn():
    made = renderer("byte-level")
    conversation = talk(learned("developer", "d"), learned("user", ""), ("assistant", "a"))
    assert trained_texts(made.render(conversation), made.tokenizer) == ["d" + END, END, "a" + END]


TEXT = st.lists(st.sampled_from(["Hello", " ", "\n", "é", "1", END, "user", "."]), max_size=4).map(
    "".join
)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])


@settings(max_examples=80)
@given(turns=st.lists(st.tuples(ROLES, TEXT, st.sampled_from([0.0, 1.0])), min_size=1, max_size=5))
def test_exactly_what_has_a_weight_is_trained(turns):
    made = renderer("byte-level")
    examples = made.render(talk(*[learned(*turn) for turn in turns]))
    found = [span for example in examples for span in trained_texts([example], made.tokenizer)]
    assert sorted(found) == sorted(text + END for _, text, weight in turns if weight)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_trains_what_the_user_says(name):
    made = renderer(name)
    conversation = talk(learned("user", "hello"), Message("assistant", "hello", weight=0.0))
    texts = trained_texts(made.render(conversation), made.tokenizer)
    assert len(texts) == 1
    assert texts[0].strip().startswith("hello")
    assert not made.tokenizer.special_ids & set(made.tokenizer.encode("hello"))


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_a_tools_result_in_real_templates(shared, name):
    tokenizer = TextTokenizer.load(shared / "tokenizers" / name)
    made = Renderer(tokenizer, load_template(tokenizer))
    call = Message("assistant", "", tool_calls=(ToolCall("f", {}, "c"),), weight=0.0)
    conversation = talk(
        ("user", "q"),
        call,
        Message("tool", "42", tool_call_id="c", weight=1.0),
        Message("assistant", "ho", weight=0.0),
    )
    assert trained_texts(made.render(conversation), tokenizer) == ["42\n</tool_response><|im_end|>"]
