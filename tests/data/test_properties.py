"""Each property is seen to hold, to be answered for, or to be broken, on templates made to do so."""

from __future__ import annotations

import pytest

from hone.data.properties import properties
from hone.data.render import Renderer
from hone.data.template import ChatTemplate
from tests.data.families import FAMILIES, renderer_by_name, renderer_of
from tests.data.small import CHATML, byte_level, sentence_piece, text_tokenizer, with_template


def verdicts(renderer, stops=None):
    eos = renderer.tokenizer.eos_id
    found = properties(renderer, frozenset(stops if stops is not None else [eos]))
    return {one.name: one.verdict for one in found}, {one.name: one.sentence for one in found}


def made(source, special=None, **config):
    tokenizer = text_tokenizer(byte_level(special), source, **{"eos_token": "<|im_end|>", **config})
    return Renderer(tokenizer, ChatTemplate(source, names=tokenizer.special_names))


def test_a_plain_chatml():
    found, said = verdicts(made(CHATML))
    assert {name for name, verdict in found.items() if verdict != "ok"} == {"tools", "reasoning"}
    assert "does not write tool calls, the tools" in said["tools"]
    assert said["end-of-turn"].startswith("a turn ends with <|im_end|>, which is trained")
    assert said["control-tokens"].startswith("2 control tokens")


@pytest.mark.parametrize("name", ["chatml", "qwen3", "mistral"])
def test_named_templates_break_nothing(name):
    found, _ = verdicts(renderer_by_name(name))
    assert "broken" not in found.values()
    assert found["tools"] == found["reasoning"] == "ok"


@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_is_broken(name):
    found, _ = verdicts(renderer_of(name))
    assert "broken" not in found.values(), found


@pytest.mark.parametrize(
    ("name", "property_", "words"),
    [
        (
            "a template that drops earlier reasoning",
            "history",
            "in conversations with reasoning): one",
        ),
        ("glm: the end is the next turn's beginning", "end-of-turn", "writes no end of turn"),
        ("glm: the end is the next turn's beginning", "history", "one Example per trained turn"),
        ("gemma: the system message in the first question, all trimmed", "contents", "is trimmed"),
        (
            "gemma: the system message in the first question, all trimmed",
            "system-inside",
            "roles must",
        ),
        ("a template that writes the date", "date", "today's date"),
        ("phi: an end of text after the last turn", "reasoning", "does not write reasoning"),
    ],
)
def test_what_is_handled_is_said(name, property_, words):
    found, said = verdicts(renderer_of(name), stops=range(1000))
    assert found[property_] == "handled"
    assert words in said[property_]


def test_an_end_at_which_the_models_files_do_not_stop():
    found, said = verdicts(made(CHATML), stops=[])
    assert found["end-of-turn"] == "handled"
    assert "do not stop at <|im_end|>, but `hone chat` does" in said["end-of-turn"]


def test_a_prompt_that_is_not_how_the_turn_begins_is_broken():
    source = CHATML.replace(
        "'<|im_start|>assistant\\n' -}}{%- endif",
        "'<|im_start|>assistant\\n<think>\\n' -}}{%- endif",
    )
    found, said = verdicts(made(source))
    assert found["plain"] == "broken"
    assert "data.template_kwargs" in said["plain"]


def test_a_template_that_refuses_everything_is_broken():
    found, said = verdicts(made("{{- raise_exception('not today') -}}"))
    assert found == {"plain": "broken"}
    assert "not today" in said["plain"]


def test_no_end_at_all_is_broken():
    source = "{%- for m in messages -%}{{- m.role + ': ' + m.content + '\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- 'assistant: ' -}}{%- endif -%}"
    tokenizer = text_tokenizer(byte_level(["<|x|>"]), source)
    found, _ = verdicts(Renderer(tokenizer, ChatTemplate(source)), stops=[])
    assert found["end-of-turn"] == "broken"


@pytest.mark.parametrize(
    ("begins", "verdict", "words"),
    [
        ("", "handled", "taken at its word"),
        ("{{- bos_token -}}", "ok", "once, at the beginning"),
        ("{{- bos_token + bos_token -}}", "broken", "twice in a row"),
    ],
)
def test_the_beginning_of_text(begins, verdict, words):
    renderer = Renderer(
        *with_template(
            sentence_piece("first", special=["<|im_start|>", "<|im_end|>"]),
            begins + CHATML,
            bos_token="<s>",
            eos_token="<|im_end|>",
            add_bos_token=True,
        )
    )
    found, said = verdicts(renderer)
    assert found["begin"] == verdict
    assert words in said["begin"]


def test_a_template_that_changes_letters_is_told():
    found, said = verdicts(made(CHATML.replace("message.content +", "message.content | lower +")))
    assert found["contents"] == "handled"
    assert "changes what messages say" in said["contents"]


@pytest.mark.parametrize("edit", ["| lower", "| replace('/no_think', '')"])
def test_a_template_whose_edits_put_control_tokens_together_is_broken(edit):
    tokens = ["<|im_start|>", "<|im_end|>"]
    renderer = made(CHATML.replace("message.content +", f"(message.content {edit}) +"), tokens)
    found, said = verdicts(renderer)
    assert found["control-tokens"] == "broken"
    assert "of its own" in said["control-tokens"]
