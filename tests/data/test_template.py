"""Which chat template is used, and what it is given."""

from __future__ import annotations

import pytest

from hone.data.render import Renderer, trained_texts
from hone.data.template import ChatTemplate, load_template
from hone.errors import ConfigError, ModelError
from tests.data.small import CHATML, byte_level, sentence_piece, talk, text_tokenizer

CALLS = [
    {"role": "user", "content": "a"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
    },
]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def test_the_models_own():
    tokenizer = text_tokenizer(byte_level(), CHATML, eos_token="<|im_end|>")
    template = load_template(tokenizer)
    assert (template.origin, template.source) == ("model", CHATML)


def test_a_second_template_for_tools():
    tokenizer = text_tokenizer(byte_level(), "plain")
    tokenizer.tool_template = "tools"
    template = load_template(tokenizer)
    assert template.render([], None) == "plain"
    assert template.render([], TOOLS) == "tools"


def test_variables_and_names_reach_it():
    tokenizer = text_tokenizer(
        byte_level(),
        "{{ eos_token }}|{{ style }}|{{ bos_token is defined }}",
        eos_token="<|im_end|>",
    )
    assert load_template(tokenizer, variables={"style": "dry"}).render([]) == "<|im_end|>|dry|False"


def test_chatml_for_a_model_without_one():
    tokenizer = text_tokenizer(byte_level(), eos_token="<|im_end|>")
    template = load_template(tokenizer)
    assert template.origin == "chatml"
    assert template.render([{"role": "user", "content": "hi"}], None, True) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chatml_equals_the_common_one():
    messages = [{"role": r, "content": r + "!"} for r in ("system", "user", "assistant", "user")]
    tokenizer = text_tokenizer(byte_level(), eos_token="<|im_end|>")
    assert load_template(tokenizer, choice="chatml").render(messages, None, True) == ChatTemplate(
        CHATML
    ).render(messages, None, True)


def test_chatml_writes_tools_calls_and_reasoning():
    template = load_template(text_tokenizer(byte_level(), eos_token="<|im_end|>"))
    text = template.render([{**CALLS[0]}, {**CALLS[1], "reasoning_content": "why"}], TOOLS)
    assert text.startswith("<|im_start|>system\n# Tools")
    assert '{"type": "function", "function": {"name": "f"}}' in text
    assert (
        '<think>\nwhy\n</think>\n\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>\n'
        in text
    )
    with_system = template.render([{"role": "system", "content": "Be brief."}, *CALLS], TOOLS)
    assert with_system.startswith("<|im_start|>system\nBe brief.\n\n# Tools")
    assert with_system.count("<|im_start|>system") == 1


def test_chatml_stops_where_its_end_is_not_one_token():
    tokenizer = text_tokenizer(byte_level(["<|endoftext|>"]), eos_token="<|endoftext|>")
    renderer = Renderer(tokenizer, load_template(tokenizer))
    conversation = talk(("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two."))
    (example,) = renderer.render(conversation)
    assert trained_texts([example], tokenizer) == [
        "One.<|im_end|><|endoftext|>",
        "Two.<|im_end|><|endoftext|>",
    ]
    assert "user\na<|im_end|>\n" in tokenizer.decode(example.input_ids.tolist())


@pytest.mark.parametrize("choice", ["chatml", "file", "file with its own"])
def test_the_beginning_of_text_stands_there_once(tmp_path, choice):
    tokenizer = text_tokenizer(
        sentence_piece("first"), bos_token="<s>", eos_token="</s>", add_bos_token=True
    )
    path = tmp_path / "template.jinja"
    path.write_text(("{{ bos_token }}" if choice.endswith("own") else "") + CHATML)
    template = load_template(tokenizer, choice="chatml" if choice == "chatml" else str(path))
    ids = Renderer(tokenizer, template).prompt([{"role": "user", "content": "hi"}])
    assert ids[0] == tokenizer.bos_id
    assert ids.count(tokenizer.bos_id) == 1


def test_the_models_own_template_is_taken_at_its_word():
    tokenizer = text_tokenizer(
        sentence_piece("first"), CHATML, bos_token="<s>", eos_token="</s>", add_bos_token=True
    )
    assert tokenizer.bos_id not in Renderer(tokenizer, load_template(tokenizer)).prompt(
        [{"role": "user", "content": "hi"}]
    )


def test_templates_that_cannot_be_used(tmp_path):
    tokenizer = text_tokenizer(byte_level())
    with pytest.raises(ConfigError, match="no such file") as caught:
        load_template(tokenizer, choice="chatlm")
    assert "did you mean 'chatml'?" in (caught.value.remedy or "")
    (tmp_path / "bad.jinja").write_text("{% for %}")
    with pytest.raises(ModelError, match="does not compile"):
        load_template(tokenizer, choice=str(tmp_path / "bad.jinja"))
    (tmp_path / "latin.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot read"):
        load_template(tokenizer, choice=str(tmp_path / "latin.jinja"))
    with pytest.raises(ModelError, match="characters long"):
        ChatTemplate("x" * 2**21)


def test_fingerprints_tell_templates_apart():
    one = ChatTemplate("a")
    assert one.fingerprint == ChatTemplate("a").fingerprint
    others = [
        ChatTemplate("b"),
        ChatTemplate("a", variables={"x": 1}),
        ChatTemplate("a", names={"eos_token": "e"}),
    ]
    assert len({one.fingerprint, *(t.fingerprint for t in others)}) == 4


def test_dates_are_known():
    assert ChatTemplate("{{ strftime_now('%d') }}").writes_today
    assert not ChatTemplate("{{ date }}").writes_today
