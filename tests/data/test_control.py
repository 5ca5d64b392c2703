"""What counts as a control token, and that guarding leaves none in any text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.control import (
    ControlTokens,
    find_control_tokens,
    guarded,
    strings_in,
    unused_characters,
)
from hone.data.template import ChatTemplate, TemplateError
from hone.data.tokenizer import Added, TextTokenizer
from hone.data.trie import trie_pattern
from tests.data.small import CHATML, byte_level, family, text_tokenizer

MARK = "\ue000"


def control(*texts: str, literals: tuple[str, ...] = ()) -> ControlTokens:
    return ControlTokens(
        [Added(t, i, True, False, False, False, False) for i, t in enumerate(texts)], literals
    )


def test_special_tokens_and_those_at_the_borders_of_turns():
    tokenizer, template = family("not-special")
    found = find_control_tokens(tokenizer, template)
    assert found.strings == {"<|end|>", "<|im_start|>", "<|im_end|>"}  # and not <tool_call>


def test_what_opens_the_body_of_a_reply_is_none():
    source = CHATML.replace(
        "message.content +",
        "('<think></think>' if message.role == 'assistant' else '') + message.content +",
    )
    tokenizer = text_tokenizer(
        byte_level(["<|end|>"], plain=["<|im_start|>", "<|im_end|>", "<think>", "</think>"]), source
    )
    found = find_control_tokens(tokenizer, ChatTemplate(source))
    assert found.strings == {"<|end|>", "<|im_start|>", "<|im_end|>"}


def test_a_token_before_the_reply_alone_counts():
    source = "{%- for m in messages -%}{{- ('<A>' if m.role == 'assistant' else '<U>') + m.content -}}{%- endfor -%}"
    tokenizer = text_tokenizer(byte_level(["<|end|>"], plain=["<A>", "<U>", "<X>"]), source)
    assert find_control_tokens(tokenizer, ChatTemplate(source)).strings == {"<|end|>", "<A>", "<U>"}


def test_tokens_that_only_systems_results_and_prompts_begin_with_count():
    source = (
        "{%- for m in messages -%}{{- '<' + m.role + '>' + m.content -}}"
        "{%- for call in m.tool_calls or [] -%}{{- '<call>' + call.function.arguments.x + '</call>' -}}"
        "{%- endfor -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<reply>' -}}{%- endif -%}"
    )
    names = ["<system>", "<user>", "<assistant>", "<tool>", "<reply>", "<call>", "</call>", "<x>"]
    tokenizer = text_tokenizer(byte_level(["<|end|>"], plain=names), source)
    found = find_control_tokens(tokenizer, ChatTemplate(source))
    assert found.strings == {"<|end|>", *names[:5]}


def test_what_a_default_system_message_speaks_of_is_none():
    source = "{{- '<S>Think between <think> and </think>.' -}}" + CHATML
    tokenizer = text_tokenizer(
        byte_level(["<|end|>"], plain=["<S>", "<think>", "</think>", "<|im_start|>"]), source
    )
    found = find_control_tokens(tokenizer, ChatTemplate(source))
    assert found.strings == {"<|end|>", "<S>", "<|im_start|>"}


def test_real_tokenizers(shared):
    for name, others in (
        ("qwen2.5", {"<tool_call>"}),
        ("qwen3", {"<tool_call>", "<think>", "<tool_response>"}),
    ):
        tokenizer = TextTokenizer.load(shared / "tokenizers" / name)
        found = find_control_tokens(tokenizer, ChatTemplate(tokenizer.chat_template))
        assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_pad|>"} <= found.strings
        assert not others & found.strings


TOKENS = ["<|a|>", "<|ab|>", "|>", "[X]", "<<"]
TEXT = st.lists(
    st.sampled_from([*TOKENS, "<", "|", ">", "a", "b", "[", "X", "]", "\n"]), max_size=8
).map("".join)


@settings(max_examples=400, deadline=None)
@given(
    texts=st.lists(TEXT, min_size=1, max_size=4),
    tokens=st.sets(st.sampled_from(TOKENS), min_size=1),
)
def test_guarded_texts_hold_no_token_alone_or_side_by_side(texts, tokens):
    found = control(*tokens)
    if found.threaten(texts, []):
        safe = guarded(texts, found, MARK)
        assert [one.replace(MARK, "") for one in safe] == texts
    else:
        safe = texts
    for one in [*safe, *(a + b for a, b in pairwise(safe))]:
        assert not any(token in one for token in tokens)


def test_texts_that_the_templates_own_would_complete():
    found = control("<|x|>", literals=("say <|", "|> then"))
    assert found.threaten(["x"], [])
    assert found.threaten(["x|>!"], [])
    assert found.threaten(["oh <|x"], [])
    assert not found.threaten(["y", "x "], [])
    assert not control("<|x|>", literals=("say",)).threaten(["x"], [])


def test_threats_in_tools_and_in_keys():
    found = control("<|x|>")
    assert found.threaten([], [{"a": [{"b<|x|>": 1}]}])
    assert found.threaten([{"name": "<|x|>"}], [])
    assert not found.threaten([{"name": "x"}], [{"a": [{"b": 1}]}])
    assert guarded([{"<|x|>": ("<|x|>", 1, None)}], found, MARK) == [
        {MARK.join("<|x|>"): [MARK.join("<|x|>"), 1, None]}
    ]


def test_a_token_of_one_letter_is_replaced():
    found = control("\u2581")
    assert found.threaten(["a\u2581b"], [])
    assert found.guard("a\u2581b", MARK) == "a\ufffdb"


def test_strings_in_a_value():
    assert sorted(strings_in({"a": ["b", {"c": "d"}, 1, None], "e": ("f",)})) == list("abcdef")


def test_unused_characters():
    first, second = unused_characters(["x"], 2)
    assert first != second
    assert unused_characters([first], 1) == [second]
    assert unused_characters([ascii(first).strip("'")], 1) == [second]
    with pytest.raises(TemplateError):
        unused_characters(
            ["".join(map(chr, [*range(0xE000, 0xF8FF), *range(0xF0000, 0xFFFFD)]))], 1
        )


@settings(max_examples=300, deadline=None)
@given(
    words=st.sets(st.text("ab(.", min_size=1, max_size=4), max_size=8),
    text=st.text("ab(.", max_size=20),
)
def test_the_pattern_finds_the_leftmost_longest(words, text):
    wanted = []
    at = 0
    while at < len(text):
        here = max((w for w in words if text.startswith(w, at)), key=len, default="")
        if here:
            wanted.append((at, here))
        at += len(here) or 1
    assert [(m.start(), m[0]) for m in trie_pattern(words).finditer(text)] == wanted
