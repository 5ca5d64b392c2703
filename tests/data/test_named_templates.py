"""The named templates write what their families publish, and fit the tokenizer that they are given."""

from __future__ import annotations

import importlib.resources
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.conversation import Message, ToolCall
from hone.data.named_templates import NAMED, missing_tokens, named_source
from hone.data.render import Renderer, trained_texts
from hone.data.template import ChatTemplate, TemplateError, load_template
from hone.data.tokenizer import TextTokenizer
from hone.data.trace import TracedTemplate
from tests.data.small import byte_level, sentence_piece, talk, text_tokenizer

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
    },
}
CALL = ToolCall("look_up", {"word": "été", "n": [1, None]}, "abcdefghi")
PLAIN = [("user", "Hi."), ("assistant", "Hello."), ("user", "Bye."), ("assistant", "So long.")]
SYSTEM = [("system", "Be brief."), *PLAIN]
MIDDLE = [*PLAIN[:2], ("system", "Be rude."), *PLAIN[2:]]
CALLS = [
    Message("user", "What is été?"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", "summer", tool_call_id="abcdefghi", name="look_up"),
    Message("assistant", "Summer."),
]


@cache
def real(shared, name):
    tokenizer = TextTokenizer.load(shared / "tokenizers" / name)
    return tokenizer, load_template(tokenizer)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["<tool_response>\nx\n</tool_response>", "<think>\na\n</think>\n\nb", "\n\nx\n", "</think>", ""]
)
CALLED = st.builds(
    ToolCall,
    TEXT,
    st.dictionaries(TEXT, TEXT | st.integers(-9, 9) | st.none(), max_size=2),
    st.none() | TEXT,
)
SAID = st.one_of(
    st.builds(Message, st.sampled_from(["user", "user", "tool", "system"]), TEXT),
    st.builds(
        Message,
        st.just("assistant"),
        TEXT,
        st.none() | TEXT,
        st.lists(CALLED, max_size=2).map(tuple),
    ),
)


@pytest.mark.parametrize(
    ("name", "family"), [("qwen", "qwen2.5"), ("qwen3", "qwen3"), ("qwen3", "no thinking")]
)
@settings(max_examples=300, deadline=None)
@given(
    said=st.lists(SAID, min_size=1, max_size=6),
    tools=st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2),
    asks=st.booleans(),
)
def test_qwen_writes_as_the_models_own(shared, name, family, said, tools, asks):
    tokenizer, _ = real(shared, "qwen2.5" if family == "qwen2.5" else "qwen3")
    how = {"variables": {"enable_thinking": False} if family == "no thinking" else None}
    ours = load_template(tokenizer, choice=name, **how)
    theirs = load_template(tokenizer, **how)
    messages = [message.as_template() for message in said]
    assert ours.render(messages, tools, asks) == theirs.render(messages, tools, asks)


def rendered(name, turns, *, tools=(), asks=False, tokenizer=None):
    tokenizer = tokenizer or text_tokenizer(
        byte_level([*NAMED[name].tokens, "<bos>", "<eos>"] if NAMED[name].tokens else ["<eos>"]),
        bos_token=NAMED[name].begin or None,
        eos_token=NAMED[name].end or "<eos>",
    )
    messages = [message.as_template() for message in talk(*turns).messages]
    return load_template(tokenizer, choice=name).render(messages, tools, asks)


def test_llama3():
    head, end = "<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>"
    assert rendered("llama3", [*SYSTEM, ("user", " Well? ")], asks=True) == (
        "<|begin_of_text|>"
        + "".join(head.format(role) + text + end for role, text in [*SYSTEM, ("user", "Well?")])
        + head.format("assistant")
    )
    text = rendered("llama3", [("system", "Be brief."), *CALLS], tools=[TOOL])
    assert text.startswith(
        "<|begin_of_text|>" + head.format("system") + "Environment: ipython\n\nBe brief.<|eot_id|>"
    )
    assert text.count(head.format("system")) == 1
    assert '"description": "Looks a word up."' in text.partition("What is été?")[0]
    assert text.endswith(
        "What is été?<|eot_id|>"
        + head.format("assistant")
        + '{"name": "look_up", "parameters": {"word": "été", "n": [1, null]}}<|eot_id|>'
        + head.format("ipython")
        + "summer<|eot_id|>"
        + head.format("assistant")
        + "Summer.<|eot_id|>"
    )


def test_llama2():
    assert rendered("llama2", SYSTEM) == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi. [/INST] Hello. <eos>"
        "<s>[INST] Bye. [/INST] So long. <eos>"
    )
    assert "<s>[INST] <<SYS>>\nBe rude.\n<</SYS>>\n\nBye. [/INST]" in rendered("llama2", MIDDLE)


def test_gemma():
    assert rendered("gemma", [*SYSTEM, ("user", "?")], asks=True) == (
        "<bos><start_of_turn>user\nBe brief.\n\nHi.<end_of_turn>\n"
        "<start_of_turn>model\nHello.<end_of_turn>\n<start_of_turn>user\nBye.<end_of_turn>\n"
        "<start_of_turn>model\nSo long.<end_of_turn>\n<start_of_turn>user\n?<end_of_turn>\n"
        "<start_of_turn>model\n"
    )
    assert "user\nBe rude.\n\nBye.<end_of_turn>" in rendered("gemma", MIDDLE)


def test_mistral():
    assert rendered("mistral", SYSTEM) == (
        "<s>[INST]Be brief.\n\nHi.[/INST]Hello.<eos>[INST]Bye.[/INST]So long.<eos>"
    )
    pieces = text_tokenizer(
        sentence_piece("first", special=["[INST]", "[/INST]", "[SYSTEM_PROMPT]"]),
        bos_token="<s>",
        eos_token="</s>",
    )
    assert rendered("mistral", MIDDLE, tokenizer=pieces) == (
        "<s>[INST] Hi.[/INST] Hello.</s>[SYSTEM_PROMPT] Be rude.[/SYSTEM_PROMPT]"
        "[INST] Bye.[/INST] So long.</s>"
    )
    thought = Message("assistant", "Summer.", reasoning="French.")
    text = rendered("mistral", [*CALLS[:3], thought], tools=[TOOL])
    assert text.startswith('<s>[AVAILABLE_TOOLS][{"type": "function"')
    assert text.endswith(
        '}][/AVAILABLE_TOOLS][INST]What is été?[/INST][TOOL_CALLS][{"name": "look_up", "arguments": '
        '{"word": "été", "n": [1, null]}, "id": "abcdefghi"}]<eos>'
        '[TOOL_RESULTS]{"content": "summer", "call_id": "abcdefghi"}[/TOOL_RESULTS]'
        "[THINK]French.[/THINK]Summer.<eos>"
    )


def test_phi_alpaca_and_plain():
    assert rendered("phi", SYSTEM[:3]) == (
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi.<|end|>\n<|assistant|>\nHello.<|end|>\n"
    )
    assert rendered("alpaca", PLAIN[:3], asks=True) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nHi.\n\n### Response:\nHello.<eos>\n\n"
        "### Instruction:\nBye.\n\n### Response:\n"
    )
    assert rendered("alpaca", SYSTEM[:2]) == "Be brief.\n\n### Instruction:\nHi.\n\n"
    assert rendered("plain", SYSTEM[:3]) == "Be brief.\nHi.\nHello.<eos>\n"


def test_qwen3_without_reasoning():
    thought = Message("assistant", "Hello.", reasoning="why")
    assert rendered("qwen3_nothink", [SYSTEM[0], PLAIN[0], thought]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
    )
    assert '<tool_call>\n{"name": "look_up", "arguments": {"word": "été"' in rendered(
        "qwen3_nothink", CALLS, tools=[TOOL]
    )


@pytest.mark.parametrize("name", ["alpaca", "gemma", "llama2", "phi", "plain"])
def test_what_has_no_form_for_calls_refuses_them(name):
    with pytest.raises(TemplateError, match=f"the {name} template has no form for"):
        rendered(name, CALLS[:2])
    with pytest.raises(TemplateError, match=f"the {name} template has no form for"):
        rendered(name, [CALLS[0], CALLS[2]])


@pytest.mark.parametrize("name", NAMED)
def test_generation_can_stop_though_the_tokenizer_has_no_token_of_the_family(name):
    tokenizer = text_tokenizer(byte_level(["<|endoftext|>"]), eos_token="<|endoftext|>")
    assert missing_tokens(name, tokenizer) == list(NAMED[name].tokens)
    renderer = Renderer(tokenizer, load_template(tokenizer, choice=name))
    examples = renderer.render(talk(*SYSTEM))
    for text, reply in zip(trained_texts(examples, tokenizer), ("Hello.", "So long."), strict=True):
        assert text.removeprefix("<think>\n\n</think>\n\n").strip().startswith(reply)
        assert text.endswith("<|endoftext|>")
        assert text.count("<|endoftext|>") == 1
    assert len(examples) == (2 if name == "qwen3" else 1)


@pytest.mark.parametrize("name", NAMED)
def test_it_is_whole_in_itself_for_transformers(name):
    from transformers.utils.chat_template_utils import render_jinja_template

    tokenizer = text_tokenizer(
        sentence_piece("first"), bos_token="<s>", eos_token="</s>", add_bos_token=True
    )
    template = load_template(tokenizer, choice=name)
    messages = [message.as_template() for message in talk(*MIDDLE).messages]
    (theirs,), _ = render_jinja_template(
        [messages], chat_template=template.source, **tokenizer.special_names
    )
    assert template.render(messages) == theirs
    assert theirs.startswith("<s>")


def test_each_has_a_file_and_each_file_a_name():
    folder = importlib.resources.files("hone.data") / "templates"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{n}.jinja" for n in NAMED)
    tokenizer = text_tokenizer(byte_level())
    for name in NAMED:
        assert ChatTemplate(named_source(name, tokenizer)).render([]) is not None


@pytest.mark.parametrize("name", NAMED)
def test_rows_of_one_structure_take_the_short_way(name):
    tokenizer = text_tokenizer(byte_level(["<eos>"]), eos_token="<eos>")
    assert TracedTemplate(named_source(name, tokenizer)) is not None
