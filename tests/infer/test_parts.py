"""Replies taken apart: the same parts however the text is cut into pieces, and nothing of the text lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.template import ChatTemplate
from hone.infer.call_formats import Call
from hone.infer.dialect import FORMATS, Dialect, find_dialect
from hone.infer.parts import Part, Parts

HERMES = Dialect(calls=FORMATS[0])
SCHEMAS = {"look": {"type": "object", "properties": {"at": {"type": "string"}}}}
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "the sky"}}\n</tool_call>'


def parted(
    pieces: list[str], dialect: Dialect = HERMES, *, tools: bool = True, thinking: bool = False
) -> list[Part]:
    """Parts, those of one kind that follow each other joined."""
    reader = Parts(dialect, SCHEMAS if tools else None, is_thinking=thinking)
    found = [part for piece in pieces for part in reader.push(piece)] + reader.end()
    joined: list[Part] = []
    for part in found:
        assert part.call is not None or part.text, "an empty part"
        if joined and joined[-1].kind == part.kind != "call":
            joined[-1] = Part(part.kind, joined[-1].text + part.text)
        else:
            joined.append(part)
    return joined


LOOK = Part("call", call=Call("look", {"at": "the sky"}))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("plain", [Part("content", "plain")]),
        ("  spaced  \n", [Part("content", "  spaced  \n")]),
        ("<think>\nhm\n</think>\n\nyes", [Part("reasoning", "hm"), Part("content", "yes")]),
        ("<think>cut off", [Part("reasoning", "cut off")]),
        ("<think>\n\n</think>\n\nyes", [Part("content", "yes")]),
        ("no <think>x</think>", [Part("content", "no <think>x</think>")]),
        (CALL, [LOOK]),
        (f"Let me.\n{CALL}\n{CALL}", [Part("content", "Let me."), LOOK, LOOK]),
        (f"<think>a</think>{CALL}", [Part("reasoning", "a"), LOOK]),
        (CALL.removesuffix("\n</tool_call>"), [LOOK]),
        ("<tool_call>broken</tool_call>", [Part("content", "<tool_call>broken</tool_call>")]),
        ("a < b <tool", [Part("content", "a < b <tool")]),
    ],
)
def test_a_reply_falls_into_its_parts_however_it_is_cut(text: str, want: list[Part]) -> None:
    assert parted([text]) == want
    assert parted(list(text)) == want
    assert parted([text[:7], text[7:]]) == want


def test_without_tools_a_call_is_text() -> None:
    assert parted([CALL], tools=False) == [Part("content", CALL)]


def test_reasoning_that_the_prompt_opened() -> None:
    want = [Part("reasoning", "hm"), Part("content", "yes")]
    assert parted(["hm\n</think>\n", "\nyes"], thinking=True) == want
    assert parted(list("hm</think>yes"), thinking=True) == want


@settings(max_examples=60)
@given(st.text(alphabet="<think>/tool_call {}a\n", max_size=60), st.integers(1, 7), st.booleans())
def test_cutting_changes_nothing(text: str, size: int, thinking: bool) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert parted(pieces, thinking=thinking) == parted([text], thinking=thinking)


JSON_CALL = '{"name": "{{ c.function.name }}", "KEY": {{ c.function.arguments | tojson }}}'
TEMPLATES = {
    "json-tags": "<tool_call>\n" + JSON_CALL.replace("KEY", "arguments") + "\n</tool_call>",
    "function-tags": "<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}"
    "<parameter={{ k }}>\n{{ v }}\n</parameter>\n{% endfor %}</function>\n</tool_call>",
    "argument-tags": "<tool_call>{{ c.function.name }}\n{% for k, v in c.function.arguments.items() %}"
    "<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v }}</arg_value>\n{% endfor %}</tool_call>",
    "json-bars": "<|tool_call|>[" + JSON_CALL.replace("KEY", "arguments") + "]<|/tool_call|>",
    "json-bar": "<|tool_call|>[" + JSON_CALL.replace("KEY", "arguments") + "]",
    "mistral": "[TOOL_CALLS][" + JSON_CALL.replace("KEY", "arguments") + "]",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ c.function.name }}\n```json\n"
    "{{ c.function.arguments | tojson }}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "python-tag": "<|python_tag|>" + JSON_CALL.replace("KEY", "parameters"),
    "bare-json": JSON_CALL.replace("KEY", "parameters"),
    "bare-json-arguments": JSON_CALL.replace("KEY", "arguments"),
}


def template_of(call: str, thinking: tuple[str, str] = ("<think>", "</think>")) -> ChatTemplate:
    return ChatTemplate(
        "{% for m in messages %}<|s|>{{ m.role }}\n"
        "{% if m.reasoning_content %}" + f"{thinking[0]}\n" + "{{ m.reasoning_content }}\n"
        f"{thinking[1]}\n\n"
        "{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}" + call + "{% endfor %}<|e|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|s|>assistant\n{% endif %}"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_family_is_read_as_its_template_writes(name: str) -> None:
    template = template_of(TEMPLATES[name])
    dialect = find_dialect(template, ["<|e|>"])
    assert dialect.calls is not None
    assert dialect.calls.name == name
    call = {"function": {"name": "look", "arguments": {"at": "12", "many": 3}}}
    asked = {"role": "user", "content": "?"}
    told = {"role": "assistant", "content": "", "tool_calls": [call]}
    prompt = template.render([asked], (), True)
    written = template.render([asked, told]).removeprefix(prompt).partition("<|e|>")[0]
    found = parted(list(written), dialect)
    assert [json.dumps(dict(p.call.arguments)) for p in found if p.call] == [
        '{"at": "12", "many": 3}'
    ]
    assert [p.kind for p in found] == ["call"]


def test_a_template_that_writes_no_calls_has_no_format_and_marks_of_thought_are_its_own() -> None:
    plain = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    assert find_dialect(plain, ["\n"]) == Dialect(("<think>", "</think>"), None)
    other = template_of("{{ c.function.name }}()", ("[THINK]", "[/THINK]"))
    assert find_dialect(other, ["<|e|>"]) == Dialect(("[THINK]", "[/THINK]"), None)
