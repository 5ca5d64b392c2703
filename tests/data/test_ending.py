"""Which token ends a trained turn, in templates that write more after it, or less."""

from __future__ import annotations

import pytest

from hone.data.conversation import Message, ToolCall
from hone.data.render import Renderer, trained_texts
from tests.data.small import byte_level, talk, with_template

EACH = "{%- for m in messages -%}"
PROMPT = "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
ROLE = "{{- '<|' + m.role + '|>\\n' + m.content -}}"
ROLES = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|text|>"]

# The template's source, its special tokens, what is trained of two turns, and in how many Examples.
FAMILIES = {
    "an end of text after the last turn": (
        EACH + ROLE + "{{- '<|end|>\\n' -}}{%- endfor -%}"
        "{{- '<|assistant|>\\n' if add_generation_prompt else eos_token -}}",
        ["One.<|end|>", "Two.<|end|>"],
        1,
    ),
    "a prompt that is always written": (
        EACH + ROLE + "{{- '<|end|>\\n' -}}{%- endfor -%}{{- '<|assistant|>\\n' -}}",
        ["One.<|end|>", "Two.<|end|>"],
        1,
    ),
    "the beginning of the next turn after every turn": (
        "{{- bos_token -}}"
        + EACH
        + "{{- '[' + m.content + ']' if m.role == 'user' else m.content + '<|end|>' + bos_token -}}"
        "{%- endfor -%}",
        ["One.<|end|>", "Two.<|end|>"],
        1,
    ),
    "no end after the last turn": (
        EACH
        + ROLE
        + "{%- if not loop.last or m.role == 'user' -%}{{- '<|end|>\\n' -}}{%- endif -%}"
        + PROMPT,
        ["One.<|end|>", "Two.<|end|>"],
        1,
    ),
    "an end of its own for the last turn": (
        EACH
        + ROLE
        + "{{- '<|text|>' if loop.last and m.role == 'assistant' else '<|end|>' -}}"
        + PROMPT,
        ["One.<|text|>", "Two.<|text|>"],
        2,
    ),
    "a token that closes the reply before the one that ends the turn": (
        EACH + ROLE + "{{- '<|text|>' if m.role == 'assistant' -}}{{- '<|end|>' -}}" + PROMPT,
        ["One.<|text|><|end|>", "Two.<|text|><|end|>"],
        1,
    ),
    "no end but the next turn's beginning": (
        "{{- bos_token -}}" + EACH + ROLE + PROMPT,
        ["One.<|text|>", "Two.<|text|>"],
        2,
    ),
    "no end, and a prompt that is always written": (
        EACH + ROLE + "{%- endfor -%}{{- '<|assistant|>\\n' -}}",
        ["One.<|text|>", "Two.<|text|>"],
        2,
    ),
}


def made(source: str) -> Renderer:
    backend = byte_level([*ROLES, "<|begin|>"])
    return Renderer(*with_template(backend, source, bos_token="<|begin|>", eos_token="<|text|>"))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_turn_ends_where_inference_would_stop(name):
    source, wanted, examples = FAMILIES[name]
    renderer = made(source)
    conversation = talk(("user", "a"), ("assistant", "One."), ("user", "b"), ("assistant", "Two."))
    found = renderer.render(conversation)
    assert trained_texts(found, renderer.tokenizer) == wanted
    assert len(found) == examples


@pytest.mark.parametrize("name", FAMILIES)
def test_empty_replies_train_the_end_alone(name):
    source, wanted, _ = FAMILIES[name]
    renderer = made(source)
    conversation = talk(("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", ""))
    assert trained_texts(renderer.render(conversation), renderer.tokenizer) == [
        text[4:] for text in wanted
    ]


def test_a_special_token_inside_an_empty_reply_is_not_its_end():
    source = (
        EACH
        + "{{- '<|' + m.role + '|>' -}}{{- '<|system|>' if m.role == 'assistant' -}}{{- m.content -}}"
        + PROMPT
    )
    renderer = made(source)
    (example,) = renderer.render(talk(("user", "a"), ("assistant", "")))
    assert trained_texts([example], renderer.tokenizer)[0].endswith("<|system|><|text|>")


def test_a_call_may_end_with_a_token_of_its_own():
    source = (
        EACH + "{{- '<|' + m.role + '|>\\n' + m.content -}}"
        "{%- for call in m.tool_calls or [] -%}{{- call.function.name -}}{%- endfor -%}"
        "{{- '<|text|>' if m.tool_calls else '<|end|>' -}}{{- '\\n' -}}" + PROMPT
    )
    renderer = made(source)
    call = Message("assistant", "", tool_calls=(ToolCall("f", {}),))
    conversation = talk(("user", "a"), call, ("user", "b"), ("assistant", "Two."))
    (example,) = renderer.render(conversation)
    assert trained_texts([example], renderer.tokenizer) == ["f<|text|>", "Two.<|end|>"]
