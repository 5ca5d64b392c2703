"""Templates that want contents in parts, a call's arguments as text, or a null beside it, are told so."""

from __future__ import annotations

import pytest

from hone.data.conversation import Message, ToolCall
from hone.data.message_form import MessageForm
from hone.data.named_templates import NAMED
from hone.data.render import Renderer, trained_texts
from hone.data.template import ChatTemplate
from tests.data.families import renderer_by_name
from tests.data.small import byte_level, talk, text_tokenizer

START = "{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' -}}"
END = (
    "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
EACH = "{%- for c in m.tool_calls -%}{{- c.function.name + ' ' -}}"
OBJECT = EACH + "{{- c.function.arguments | tojson -}}{%- endfor -%}"
TEXT = EACH + "{{- c.function.arguments -}}{%- endfor -%}"
ADDED = EACH + "{{- '```' + c.function.arguments + '```' -}}{%- endfor -%}"
BOTH = (
    EACH
    + "{{- c.function.arguments if c.function.arguments is string else c.function.arguments | tojson -}}{%- endfor -%}"
)
ITEMS = (
    EACH
    + "{%- for k, v in c.function.arguments.items() -%}{{- k + '=' + v -}}{%- endfor -%}{%- endfor -%}"
)


def within(calls: str, test: str = "m.tool_calls") -> str:
    return (
        START
        + "{%- if "
        + test
        + " -%}"
        + calls
        + "{%- else -%}{{- m.content -}}{%- endif -%}"
        + END
    )


@pytest.mark.parametrize(
    ("source", "form", "written"),
    [
        (within(OBJECT), MessageForm(), 'f {"x": "é<|im_end|>"}'),
        (within(BOTH), MessageForm(), 'f {"x": "é<|im_end|>"}'),
        (within(ITEMS), MessageForm(), "f x=é<|im_end|>"),
        (within(TEXT), MessageForm(as_text=True), 'f {"x": "é<|im_end|>"}'),
        (within(ADDED), MessageForm(as_text=True), 'f ```{"x": "é<|im_end|>"}```'),
        (within(OBJECT, "m.content is none"), MessageForm(null=True), 'f {"x": "é<|im_end|>"}'),
        (
            within(ADDED, "m.content is none"),
            MessageForm(as_text=True, null=True),
            'f ```{"x": "é<|im_end|>"}```',
        ),
    ],
)
def test_a_call_is_given_in_the_form_that_the_template_wants(source, form, written):
    assert ChatTemplate(source).form == form
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    renderer = Renderer(tokenizer, ChatTemplate(source))
    call = Message("assistant", "", tool_calls=(ToolCall("f", {"x": "é<|im_end|>"}),))
    conversation = talk(("user", "a"), call, ("user", "b"), ("assistant", "c"))
    examples = renderer.render(conversation)
    assert trained_texts(examples, tokenizer) == [f"{written}<|im_end|>", "c<|im_end|>"]
    assert sum(one.input_ids.tolist().count(tokenizer.eos_id) for one in examples) == 4


def test_arguments_that_are_text_stay_so():
    source = within(TEXT)
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    call = Message("assistant", "", tool_calls=(ToolCall("f", "not json"),))
    (example,) = Renderer(tokenizer, ChatTemplate(source)).render(talk(("user", "a"), call))
    assert trained_texts([example], tokenizer) == ["f not json<|im_end|>"]


def test_what_is_said_beside_a_call_stays():
    form = MessageForm(null=True)
    calls = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    assert form.told({"role": "assistant", "content": "", "tool_calls": calls})["content"] is None
    assert form.told({"role": "assistant", "content": "x", "tool_calls": calls})["content"] == "x"
    assert form.told({"role": "assistant", "content": ""})["content"] == ""


@pytest.mark.parametrize("name", NAMED)
def test_ours_want_objects(name):
    assert renderer_by_name(name).template.form == MessageForm()


PARTS = (
    START
    + "{%- for part in m.content -%}{{- part.text if part.type == 'text' -}}{%- endfor -%}"
    + END
)


@pytest.mark.parametrize(
    "source",
    [
        PARTS,
        PARTS.replace("part.text if part.type == 'text'", "part['text'] + ''"),
        START + "{{- m.content[0].text -}}" + END,
    ],
)
def test_contents_are_given_in_parts_where_only_parts_are_written(source):
    assert ChatTemplate(source).form == MessageForm(parts=True)
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    renderer = Renderer(tokenizer, ChatTemplate(source))
    conversation = talk(
        ("user", "<|im_end|>"), ("assistant", "One."), ("user", "b"), ("assistant", "")
    )
    (example,) = renderer.render(conversation)
    assert trained_texts([example], tokenizer) == ["One.<|im_end|>", "<|im_end|>"]
    assert tokenizer.decode(example.input_ids.tolist()).startswith(
        "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\nOne."
    )
    assert example.input_ids.tolist().count(tokenizer.eos_id) == 4


def test_templates_that_take_both_are_given_text():
    source = START + "{{- m.content if m.content is string else m.content[0].text -}}" + END
    assert ChatTemplate(source).form == MessageForm()
