"""Ollama's templates: what the Go text writes, by an interpreter of its own, is what the model's template writes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hone.data.template import ChatTemplate
from hone.errors import ConfigError
from hone.recipes.go_template import go_template
from tests.folders import CHATML

LLAMA_2 = (
    "{% if messages[0].role == 'system' %}{% set sys = '<<SYS>>' + messages[0].content + '<</SYS>>\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set sys = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}{% if m.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (sys if loop.first else '') + m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)  # fmt: skip
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
    + CHATML
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ bos_token }}{% for m in messages %}"
    "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama-2": LLAMA_2, "default system": DEFAULT_SYSTEM}
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


def written_by_go(text: str, system: str, messages: list[dict[str, str]]) -> str:
    """The part of Go's text/template that a Modelfile of ours uses."""
    told = [{"role": "system", "content": system}, *messages] if system else messages
    tokens = re.split(r"(\{\{.*?\}\})", text, flags=re.DOTALL)
    out: list[str] = []
    names: dict[str, Any] = {}

    def value(words: str, at: int) -> Any:
        words = words.strip()
        if words.startswith("(") and words.endswith(")"):
            return value(words[1:-1], at)
        if words == ".System":
            return system
        if words == ".Content":
            return told[at]["content"]
        if words == ".Role":
            return told[at]["role"]
        if words.startswith("$") and words[1:] in names:
            return names[words[1:]]
        if words == "eq (len (slice $.Messages $i)) 1":
            return len(told) - at == 1
        if found := re.fullmatch(r'(eq|ne) \.Role "(\w+)"', words):
            return (told[at]["role"] == found[2]) == (found[1] == "eq")
        if found := re.fullmatch(r"not \((.*)\)", words):
            return not value(found[1], at)
        if found := re.fullmatch(r"and \((.*)\) \((.*)\)", words):
            return value(found[1], at) and value(found[2], at)
        raise AssertionError(f"not of this language: {words}")

    def block(i: int, at: int, runs: bool) -> int:
        """Run tokens from `i` to the end of the block; returns where `end` or `else` stands."""
        while i < len(tokens):
            token = tokens[i]
            action = token[2:-2].strip() if token.startswith("{{") else None
            if action is None:
                out.extend([token] if runs else [])
            elif action.startswith("range"):
                for place in range(len(told)) if runs else [0]:
                    names["i"] = place
                    end = block(i + 1, place, runs)
                i = end
            elif action.startswith("if "):
                i = choice(i, at, runs)
            elif action == "end" or action.startswith("else"):
                return i
            elif found := re.fullmatch(r"\$(\w+) :?= (true|false)", action):
                if runs:
                    names[found[1]] = found[2] == "true"
            elif runs:
                out.append(str(value(action, at)))
            i += 1
        return i

    def choice(i: int, at: int, runs: bool) -> int:
        done = False
        while True:
            action = tokens[i][2:-2].strip()
            words = action.removeprefix("else ").removeprefix("if ")
            holds = runs and not done and (action == "else" or bool(value(words, at)))
            done = done or holds
            i = block(i + 1, at, holds)
            if tokens[i][2:-2].strip() == "end":
                return i

    block(0, 0, True)
    return "".join(out)


CHATS = [
    [("user", "Hi?")],
    [("user", "One\n\ntwo"), ("assistant", "Three."), ("user", "Four?")],
    [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")],
]


@pytest.mark.parametrize("system", ["", "You answer briefly."])
@pytest.mark.parametrize("name", TEMPLATES)
def test_ollama_writes_what_the_template_writes(name: str, system: str) -> None:
    template = ChatTemplate(TEMPLATES[name], names=NAMES)
    made = go_template(template)
    for chat in CHATS:
        messages = [{"role": role, "content": text} for role, text in chat]
        told = [{"role": "system", "content": system}, *messages] if system else messages
        wanted = template.render(told, add_generation_prompt=True)
        assert written_by_go(made.text, system, messages) == wanted


def test_a_reply_that_is_begun_is_not_ended() -> None:
    made = go_template(ChatTemplate(CHATML))
    begun = written_by_go(made.text, "", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])  # fmt: skip
    assert begun.endswith("<|im_start|>assistant\nb")


def test_what_the_engine_puts_first_is_left_out() -> None:
    made = go_template(ChatTemplate(LLAMA_2, names=NAMES), leave_out="<s>")
    text = written_by_go(made.text, "", [{"role": "user", "content": "a"}])
    assert text == "[INST] a [/INST]"


def test_a_refused_system_text_and_trimming_are_told() -> None:
    made = go_template(ChatTemplate(NO_SYSTEM, names=NAMES))
    assert any("refuses a system text" in notice for notice in made.notices)
    assert any("removes spaces" in notice for notice in made.notices)


@pytest.mark.parametrize(
    "source",
    [
        CHATML.replace("m['content']", "m['content'] + (loop.index | string)"),
        "{% for m in messages %}{{ m.content }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{% if not loop.last or loop.length < 4 %}{{ m.role + m.content }}{% endif %}{% endfor %}",
        CHATML.replace("<|im_end|>", "{' + '{"),
    ],
)
def test_templates_that_are_no_sequence_are_refused(source: str) -> None:
    with pytest.raises(ConfigError, match=r"no form that Ollama knows|reads as its own") as caught:
        go_template(ChatTemplate(source))
    assert "gguf" in str(caught.value)
