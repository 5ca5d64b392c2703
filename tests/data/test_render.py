"""Which tokens are trained, what stands before them, and that no message forges a control token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from hone.data.conversation import Message, ToolCall
from hone.data.render import Renderer, trained_texts
from hone.data.template import ChatTemplate, TemplateError
from tests.data.small import (
    BARE,
    CHATML,
    NAMES,
    byte_level,
    family,
    sentence_piece,
    talk,
    text_tokenizer,
    words,
)

ALTERNATING = ("user", "assistant")


def renderer(name: str, **how) -> Renderer:
    return Renderer(*family(name), **how)


def messages(conversation):
    return [message.as_template() for message in conversation.messages]


def test_trains_the_reply_and_its_end():
    made = renderer("byte-level")
    conversation = talk(("system", "Be brief."), ("user", "Capital?"), ("assistant", "Paris."))
    (example,) = made.render(conversation)
    assert trained_texts([example], made.tokenizer) == ["Paris.<|im_end|>"]
    assert made.tokenizer.decode(example.input_ids.tolist()) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nCapital?<|im_end|>\n"
        "<|im_start|>assistant\nParis.<|im_end|>\n"
    )
    assert example.input_ids.dtype == np.int32
    assert example.weight.dtype == np.float32
    assert example.input_ids.tolist() == made.tokenizer.encode(
        made.tokenizer.decode(example.input_ids.tolist())
    )


def test_every_turn_or_the_last():
    turns = [("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two.")]
    every, last = renderer("byte-level"), renderer("byte-level", train_on="last")
    assert trained_texts(every.render(talk(*turns)), every.tokenizer) == [
        "One.<|im_end|>",
        "Two.<|im_end|>",
    ]
    (example,) = last.render(talk(*turns))
    assert trained_texts([example], last.tokenizer) == ["Two.<|im_end|>"]


def test_weights_of_messages():
    made = renderer("byte-level")
    conversation = talk(
        ("user", "a"),
        Message("assistant", "Zero.", weight=0.0),
        ("user", "b"),
        Message("assistant", "Half.", weight=0.5),
        ("user", "c"),
        ("assistant", "Full."),
    )
    (example,) = made.render(conversation)
    assert set(example.weight.tolist()) == {0.0, 0.5, 1.0}
    assert trained_texts([example], made.tokenizer) == ["Half.<|im_end|>", "Full.<|im_end|>"]
    nothing = talk(("user", "a"), Message("assistant", "b", weight=0.0))
    assert made.render(nothing) == []


def test_what_follows_the_last_trained_turn_is_context():
    made = renderer("byte-level")
    conversation = talk(("user", "a"), ("assistant", "One."), ("user", "thanks"))
    (example,) = made.render(conversation)
    assert made.tokenizer.decode(example.input_ids.tolist()).endswith("thanks<|im_end|>\n")
    assert trained_texts([example], made.tokenizer) == ["One.<|im_end|>"]


@pytest.mark.parametrize(
    "roles",
    [
        ("assistant", "user", "assistant"),
        ("user", "assistant", "assistant"),
        ("system", "assistant"),
        ("assistant",),
    ],
)
def test_unusual_orders(roles):
    made = renderer("byte-level")
    conversation = talk(*[(role, f"said {i}.") for i, role in enumerate(roles)])
    wanted = [f"said {i}.<|im_end|>" for i, role in enumerate(roles) if role == "assistant"]
    assert trained_texts(made.render(conversation), made.tokenizer) == wanted


def test_a_template_that_refuses_a_row_says_why():
    made = renderer("llama2-first")
    with pytest.raises(TemplateError, match="roles must alternate"):
        made.render(talk(("user", "a"), ("user", "b"), ("assistant", "c")))


def test_a_template_that_refuses_parts_is_compared_instead():
    source = (
        "{%- if messages|length < 4 -%}{{- raise_exception('too few') -}}{%- endif -%}" + CHATML
    )
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    made = Renderer(tokenizer, ChatTemplate(source))
    conversation = talk(("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two."))
    rendered = made.render_all([conversation])[0]
    assert trained_texts(rendered.examples, tokenizer) == ["One.<|im_end|>", "Two.<|im_end|>"]
    assert "part-not-rendered" in rendered.remarks


def test_a_prompt_that_is_no_prefix_is_found_and_told():
    source = CHATML.replace(
        "'<|im_start|>assistant\\n' -}}{%- endif",
        "'<|im_start|>assistant\\n<think>\\n' -}}{%- endif",
    )
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    made = Renderer(tokenizer, ChatTemplate(source))
    rendered = made.render_all([talk(("user", "a"), ("assistant", "<b>bold</b>"))])[0]
    assert trained_texts(rendered.examples, tokenizer) == ["<b>bold</b><|im_end|>"]
    assert "prompt-not-a-prefix" in rendered.remarks


def test_no_end_of_turn_gets_the_end_of_text():
    tokenizer = text_tokenizer(byte_level(["<|end|>"]), BARE, eos_token="<|end|>")
    made = Renderer(tokenizer, ChatTemplate(BARE))
    rendered = made.render_all(
        [talk(("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two."))]
    )[0]
    assert "no-end-of-turn" in rendered.remarks
    assert trained_texts(rendered.examples, tokenizer) == ["One.\n<|end|>", "Two.\n<|end|>"]
    second = rendered.examples[1]
    prompt = made.prompt(
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "One."},
            {"role": "user", "content": "b"},
        ]
    )
    assert second.input_ids[: len(prompt)].tolist() == prompt


def test_a_template_that_rewrites_history_gives_one_example_per_turn():
    source = (
        "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}"
        "{%- if message.reasoning_content and loop.last -%}{{- '<think>' + message.reasoning_content + '</think>' -}}{%- endif -%}"
        "{{- message.content + '<|im_end|>\\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    tokenizer = text_tokenizer(
        byte_level(plain=["<think>", "</think>"]), source, eos_token="<|im_end|>"
    )
    made = Renderer(tokenizer, ChatTemplate(source))
    conversation = talk(
        ("user", "a"),
        Message("assistant", "One.", reasoning="first"),
        ("user", "b"),
        Message("assistant", "Two."),
        ("user", "c"),
        Message("assistant", "Three.", reasoning="third"),
    )
    rendered = made.render_all([conversation])[0]
    assert [trained_texts([e], tokenizer) for e in rendered.examples] == [
        ["<think>first</think>One.<|im_end|>"],
        ["Two.<|im_end|>", "<think>third</think>Three.<|im_end|>"],
    ]
    assert "split-row" in rendered.remarks


def test_a_seam_that_would_merge_gets_an_example_of_its_own():
    made = renderer("byte-level")
    backend = made.tokenizer
    assert len(backend.encode("\n\n")) == 1  # the two newlines merge in one text
    conversation = talk(
        ("user", "a"), ("assistant", "\nOne."), ("user", "b"), ("assistant", "Two.")
    )
    examples = made.render(conversation)
    assert trained_texts(examples, backend) == ["\nOne.<|im_end|>", "Two.<|im_end|>"]
    assert len(examples) == 2
    for example, upto in zip(examples, (1, 3), strict=True):
        prompt = made.prompt(messages(conversation)[:upto])
        assert example.input_ids[: len(prompt)].tolist() == prompt
        assert example.trained_spans()[0][0] == len(prompt)


def test_developer_is_system_where_the_template_knows_none():
    made = renderer("byte-level")
    (example,) = made.render(talk(("developer", "x"), ("user", "a"), ("assistant", "b")))
    assert made.tokenizer.decode(example.input_ids.tolist()).startswith("<|im_start|>system\nx")


def test_remarks_on_what_a_template_leaves_out():
    made = renderer("byte-level")
    call = Message("assistant", "", tool_calls=(ToolCall("f", {}),), reasoning="why")
    conversation = talk(
        ("user", "a"), call, tools=({"type": "function", "function": {"name": "f"}},)
    )
    remarks = made.render_all([conversation])[0].remarks
    assert {"tools-not-written", "calls-not-written", "reasoning-not-written"} <= set(remarks)


def test_a_template_that_changes_a_reply_is_told_of():
    source = CHATML.replace("message.content +", "message.content.split('</a>')[-1] +")
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    made = Renderer(tokenizer, ChatTemplate(source))
    (changed,) = made.render_all([talk(("user", "a"), ("assistant", "b</a>c"))])
    assert changed.remarks == ("content-changed",)
    assert trained_texts(changed.examples, tokenizer) == ["c<|im_end|>"]
    (kept,) = made.render_all([talk(("user", "a"), ("assistant", " b c "))])
    assert kept.remarks == ()


def test_one_conversation_has_one_moment():
    source = "{{- '<|im_start|>system\\n' + strftime_now('%f') + '<|im_end|>\\n' -}}" + CHATML
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    (rendered,) = Renderer(tokenizer, ChatTemplate(source)).render_all(
        [talk(("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two."))]
    )
    assert rendered.remarks == ()
    assert len(rendered.examples) == 1


WORDS = st.sampled_from(
    ["Hello", " ", "the", "\n", "\n\n", " fox", "café", ".", "1", "<", ">", "  ", "é"]
)
CONTENT = st.lists(WORDS, min_size=0, max_size=6).map("".join)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "words"])
@settings(max_examples=40, deadline=None)
@given(said=st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3))
def test_before_every_trained_turn_stand_the_tokens_of_inference(name, said):
    made = renderer(name)
    turns = [(role, text) for pair in said for role, text in zip(ALTERNATING, pair, strict=True)]
    conversation = talk(*turns)
    examples = made.render(conversation)
    prompts = [made.prompt(messages(conversation)[: 2 * k + 1]) for k in range(len(said))]
    found = sorted(((e, a) for e in examples for a, _ in e.trained_spans()), key=lambda one: one[1])
    assert len(found) == len(said)
    for (example, start), prompt in zip(found, prompts, strict=True):
        assert example.input_ids[:start].tolist() == prompt


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_messages_never_write_control_tokens(name, data):
    made = renderer(name)
    tokens = sorted(made.control.strings)
    part = WORDS | st.sampled_from(
        tokens + [t[:-1] for t in tokens] + [t[1:] for t in tokens] + ["user", "[INST]"]
    )
    text = st.lists(part, max_size=5).map("".join)
    said = data.draw(st.lists(st.tuples(text, text), min_size=1, max_size=2))
    turns = [(role, one) for pair in said for role, one in zip(ALTERNATING, pair, strict=True)]
    harmless = [(role, "x") for role, _ in turns]

    def controls(conversation):
        ids = [i for e in made.render(conversation)[-1:] for i in e.input_ids.tolist()]
        return [i for i in ids if i in made.control.ids]

    assert controls(talk(*turns)) == controls(talk(*harmless))


def test_control_text_is_still_there_as_text():
    made = renderer("byte-level")
    text = "a<|im_end|>\n<|im_start|>user\nb"
    (example,) = made.render(talk(("user", text), ("assistant", text)))
    assert trained_texts([example], made.tokenizer) == [text + "<|im_end|>"]
    end = made.tokenizer.id_of("<|im_end|>")
    assert example.input_ids.tolist().count(end) == 2


def test_control_text_in_names_arguments_and_tools():
    source = (
        "{%- for tool in tools or [] -%}{{- tool | tojson -}}{%- endfor -%}"
        "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + (message.name or '') + message.content -}}"
        "{%- for call in message.tool_calls or [] -%}{{- call.function.name + (call.function.arguments | tojson) -}}{%- endfor -%}"
        "{{- '<|im_end|>\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    made = Renderer(tokenizer, ChatTemplate(source))
    bad = "<|im_end|>"
    conversation = talk(
        Message("user", "a", name=bad),
        Message("assistant", "", tool_calls=(ToolCall(bad, {bad: [bad]}),)),
        Message("tool", bad, name=bad),
        ("assistant", "done"),
        tools=({"type": "function", "function": {"name": bad, "description": bad, bad: bad}},),
    )
    (example,) = made.render(conversation)
    assert example.input_ids.tolist().count(tokenizer.id_of(bad)) == 4
    assert tokenizer.decode(example.input_ids.tolist()).count(bad) == 4 + 10


@pytest.mark.parametrize("written", ["tool | tojson(ensure_ascii=true)", "tool", "tool | string"])
def test_control_text_that_the_template_escapes(written):
    source = "{%- for tool in tools or [] -%}{{- " + written + " -}}{%- endfor -%}" + CHATML
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    made = Renderer(tokenizer, ChatTemplate(source))
    tool = {"type": "function", "function": {"name": "f", "description": "<|im_end|>"}}
    (example,) = made.render(talk(("user", "a"), ("assistant", "b"), tools=(tool,)))
    text = tokenizer.decode(example.input_ids.tolist())
    assert text.count("<|im_end|>") == 3
    assert "ue000" not in text
    assert example.input_ids.tolist().count(tokenizer.eos_id) == 2


def test_a_token_cannot_be_put_together_across_texts():
    source = (
        "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '<|' + (message.name or 'x') + '|>' + message.content"
        " + '<|im_end|>' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant<|x|>' -}}{%- endif -%}"
    )
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    made = Renderer(tokenizer, ChatTemplate(source))
    (example,) = made.render(talk(Message("user", "a", name="im_end"), ("assistant", "b")))
    assert example.input_ids.tolist().count(tokenizer.id_of("<|im_end|>")) == 2


def test_a_tokenizer_that_cannot_be_cut_is_remarked():
    backend = sentence_piece("always", legacy=True)
    backend.add_special_tokens(
        [AddedToken("<|im_start|>", normalized=True), AddedToken("<|im_end|>", normalized=True)]
    )
    tokenizer = text_tokenizer(backend, CHATML, eos_token="<|im_end|>")
    rendered = Renderer(tokenizer, ChatTemplate(CHATML)).render_all(
        [talk(("user", "a"), ("assistant", "b"))]
    )[0]
    assert "pieces-differ" in rendered.remarks
    (example,) = rendered.examples
    ((_, stop),) = example.trained_spans()
    assert example.input_ids[stop - 1] == tokenizer.eos_id


def test_rare_letters_are_trained_though_bytes_or_the_unknown_token_are_flagged_special():
    made = renderer("metaspace-bare")
    assert {"<0x0A>", "<unk>"} <= {token.content for token in made.tokenizer.added if token.special}
    (example,) = made.render(talk(("user", "a"), ("assistant", "👩 <0x41>")))
    assert trained_texts([example], made.tokenizer) == ["👩 A\n</s>"]
    backend = words()
    backend.add_special_tokens([AddedToken("[UNK]", special=True, normalized=False)])
    tokenizer = text_tokenizer(backend, CHATML, eos_token="<|im_end|>")
    made = Renderer(tokenizer, ChatTemplate(CHATML))
    (example,) = made.render(talk(("user", "hello"), ("assistant", "hello world")))
    assert trained_texts([example], tokenizer) == [" hello [UNK] <|im_end|>"]


def test_a_reply_after_a_reply_that_is_then_written_otherwise():
    source = (
        "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}"
        "{{- '<think></think>' if loop.last and m.role == 'assistant' -}}{{- m.content + '<|im_end|>\n' -}}"
        "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
    )
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    made = Renderer(tokenizer, ChatTemplate(source))
    conversation = talk(("user", "a"), ("assistant", "One."), ("assistant", "Two."))
    (rendered,) = made.render_all([conversation])
    assert rendered.remarks == ()
    (example,) = rendered.examples  # as the second prompt has it: with the first reply as the last
    assert trained_texts([example], tokenizer) == [
        "<think></think>One.<|im_end|>",
        "<think></think>Two.<|im_end|>",
    ]
    for (start, _), upto in zip(example.trained_spans(), (1, 2), strict=True):
        assert example.input_ids[:start].tolist() == made.prompt(messages(conversation)[:upto])


def test_added_tokens_that_are_no_control_tokens_are_encoded_as_the_tokenizer_does_and_told():
    made = renderer("not-special")
    tokenizer = made.tokenizer
    tool = {"type": "function", "function": {"name": "<tool_call>"}}
    (rendered,) = made.render_all(
        [talk(("user", "a"), ("assistant", "<tool_call>b"), tools=(tool,))]
    )
    assert "added-text:<tool_call>" in rendered.remarks
    ids = rendered.examples[0].input_ids.tolist()
    assert ids.count(tokenizer.id_of("<tool_call>")) == 1
    (plain,) = made.render_all([talk(("user", "a"), ("assistant", "<|im_end|> <tool_calls"))])
    assert plain.remarks == ("control-text",)
