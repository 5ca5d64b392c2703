"""Reasoning and arguments reach each template in the form that it wants, whatever the row's spelling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.conversation import Message, ToolCall, split_thought
from hone.data.render import Renderer, trained_texts
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from hone.data.wants import Wants
from tests.data.small import CHATML, byte_level, talk, text_tokenizer

TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}"
CALLS = {
    "tojson": "{{ c.function.arguments | tojson }}",
    "text joined": "{{ '' ~ c.function.arguments }}",
    "text added": "{{ '<' + c.function.arguments + '>' }}",
    "text written": "{{ c.function.arguments }}",
    "text or object": "{% if c.function.arguments is string %}{{ c.function.arguments }}"
    "{% else %}{{ c.function.arguments | tojson }}{% endif %}",
    "pairs": "{% for k, v in c.function.arguments.items() %}<{{ k }}={{ v }}>{% endfor %}",
    "python": "{% for k, v in c.function.arguments | items %}{{ k }}='{{ v }}',{% endfor %}",
    "not written": "",
}
WANTED = {
    "tojson": "object",
    "text joined": "text",
    "text added": "text",
    "text written": "text",
    "text or object": "object",
    "pairs": "object",
    "python": "object",
    "not written": "object",
}


def template(calls: str = "", reasoning: str = "", refusals: str = "") -> ChatTemplate:
    return ChatTemplate(
        f"{refusals}{{%- for m in messages -%}}{{{{- '<|im_start|>' + m.role + '\\n' -}}}}{reasoning}"
        f"{{{{- m.content -}}}}{{%- for c in m.tool_calls or [] -%}}[{{{{- c.function.name -}}}}|{calls}]"
        "{%- endfor -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )


def renderer(made: ChatTemplate) -> Renderer:
    backend = byte_level(plain=["<think>", "</think>"])
    return Renderer(text_tokenizer(backend, made.source, eos_token="<|im_end|>"), made)


@pytest.mark.parametrize("name", CALLS)
def test_a_template_is_asked_for_its_form_of_arguments(name):
    assert template(CALLS[name]).form.as_text == (WANTED[name] == "text")


def test_a_template_that_refuses_open_calls_is_asked_with_their_results():
    refusals = (
        "{%- if messages[-1].tool_calls -%}{{- raise_exception('no result') -}}{%- endif -%}"
        "{%- if not tools -%}{{- raise_exception('no tools') -}}{%- endif -%}"
    )
    assert template(CALLS["text joined"], refusals=refusals).form.as_text
    assert not template(CALLS["tojson"], refusals=refusals).form.as_text


@pytest.mark.parametrize("name", ["tojson", "text joined", "text written", "text or object"])
@pytest.mark.parametrize("arguments", [{"a": "é", "b": [1.0, None]}, {}, {"a": {"b": "<x>"}}])
def test_arguments_come_out_as_json_once(name, arguments):
    made = renderer(template(CALLS[name]))
    call = Message("assistant", "", tool_calls=(ToolCall("f", arguments),))
    (text,) = trained_texts(made.render(talk(("user", "q"), call)), made.tokenizer)
    assert text == f"[f|{json.dumps(arguments, ensure_ascii=False)}]<|im_end|>"


def test_control_text_in_arguments_given_as_text_is_no_control_token():
    made = renderer(template(CALLS["text joined"]))
    call = Message("assistant", "", tool_calls=(ToolCall("f", {"a": "<|im_end|>"}),))
    (example,) = made.render(talk(("user", "q"), call))
    end = made.tokenizer.id_of("<|im_end|>")
    assert example.input_ids.tolist().count(end) == 2
    assert trained_texts([example], made.tokenizer) == ['[f|{"a": "<|im_end|>"}]<|im_end|>']


def test_calls_side_by_side_are_all_written():
    made = renderer(template(CALLS["tojson"]))
    calls = (ToolCall("f", {"a": 1}, "x"), ToolCall("g", {}, "y"))
    conversation = talk(("user", "q"), Message("assistant", "", tool_calls=calls))
    (text,) = trained_texts(made.render(conversation), made.tokenizer)
    assert text == '[f|{"a": 1}][g|{}]<|im_end|>'


FIELD = "{%- if m.reasoning_content -%}{{- '<think>' + m.reasoning_content + '</think>' -}}{%- endif -%}"
THINKING = FIELD.replace("reasoning_content", "thinking")


@pytest.mark.parametrize("field", [FIELD, THINKING])
def test_a_template_that_knows_the_field_gets_it(field):
    made = renderer(template(reasoning=field))
    inline = talk(("user", "q"), ("assistant", "<think>\nwhy\n</think>\n\nho"))
    own = talk(("user", "q"), Message("assistant", "ho", reasoning="why"))
    texts = [trained_texts(made.render(one), made.tokenizer) for one in (inline, own)]
    assert texts == [["<think>why</think>ho<|im_end|>"]] * 2


def test_a_template_that_does_not_shows_the_text_as_it_is_written():
    made = renderer(ChatTemplate(CHATML))
    text = "<think>\nwhy\n</think>\n\nho"
    rendered = made.render_all([talk(("user", "q"), ("assistant", text))])[0]
    assert trained_texts(rendered.examples, made.tokenizer) == [text + "<|im_end|>"]
    assert set(rendered.remarks) == {"added-text:<think>", "added-text:</think>"}
    own = talk(("user", "q"), Message("assistant", "ho", reasoning="why"))
    assert "reasoning-not-written" in made.render_all([own])[0].remarks


def test_a_template_that_cuts_thoughts_off_is_told_of():
    made = renderer(
        ChatTemplate(CHATML.replace("message.content", "message.content.split('</think>')[-1]"))
    )
    rendered = made.render_all([talk(("user", "q"), ("assistant", "<think>why</think>ho"))])[0]
    assert trained_texts(rendered.examples, made.tokenizer) == ["ho<|im_end|>"]
    assert "reasoning-not-written" in rendered.remarks


@pytest.mark.parametrize(
    "text",
    [
        "<think>\n\n</think>\n\nho",
        "<think></think>ho",
        "<think>why",
        "\n<think>why</think>",
        "why</think>ho",
    ],
)
def test_what_is_no_thought_stays_as_it_is_written(text):
    assert split_thought(text) is None
    made = renderer(template(reasoning=FIELD))
    conversation = talk(("user", "q"), ("assistant", text))
    assert trained_texts(made.render(conversation), made.tokenizer) == [text + "<|im_end|>"]


@pytest.fixture(scope="session")
def qwen3(shared) -> Renderer:
    folder: Path = shared / "tokenizers" / "qwen3"
    tokenizer = TextTokenizer.load(folder)
    return Renderer(tokenizer, load_template(tokenizer))


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
THOUGHT = WORDS.map(lambda text: text.strip("\n")).filter(
    lambda text: text.strip() and "</think>" not in text
)
REPLY = WORDS.map(lambda text: text.lstrip("\n")).filter(lambda text: "</think>" not in text)
CALL = (ToolCall("f", {"a": "1"}),)


@settings(max_examples=60)
@given(
    turns=st.lists(
        st.tuples(WORDS, THOUGHT, REPLY, st.sampled_from([(), CALL])), min_size=1, max_size=3
    ),
    breaks=st.sampled_from(["", "\n"]),
)
def test_both_spellings_of_a_thought_are_one_example(qwen3, turns, breaks):
    inline, own = [], []
    for asked, thought, reply, calls in turns:
        text = f"<think>{breaks}{thought}{breaks}</think>{breaks * 2}{reply}"
        inline += [("user", asked), Message("assistant", text, tool_calls=calls)]
        own += [("user", asked), Message("assistant", reply, thought, calls)]
    one, two = qwen3.render(talk(*inline)), qwen3.render(talk(*own))
    assert [e.input_ids.tolist() for e in one] == [e.input_ids.tolist() for e in two]
    assert [e.weight.tolist() for e in one] == [e.weight.tolist() for e in two]
    messages = [[m.as_template() for m in talk(*turns).messages] for turns in (inline, own)]
    assert qwen3.prompt([*messages[0][:-1]]) == qwen3.prompt([*messages[1][:-1]])


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_real_templates(shared, name):
    tokenizer = TextTokenizer.load(shared / "tokenizers" / name)
    own = load_template(tokenizer)
    assert not own.form.as_text
    assert Wants(own).reasoning == (name == "qwen3")
    built_in = load_template(tokenizer, choice="chatml")
    assert not built_in.form.as_text
    assert Wants(built_in).reasoning
