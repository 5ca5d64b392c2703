"""A template that is not the model's, or not for its tokenizer, is told of with what it writes."""

from __future__ import annotations

from hone.data.misfit import find_mismatch, template_notices
from hone.data.template import ChatTemplate, load_template
from tests.data.small import CHATML, PHI3, byte_level, text_tokenizer


def notices(tokenizer, choice, **how):
    return template_notices(tokenizer, load_template(tokenizer, choice=choice, **how))


def test_another_template_than_the_models_is_shown_beside_it():
    tokenizer = text_tokenizer(
        byte_level(["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]),
        CHATML,
        eos_token="<|im_end|>",
    )
    ((code, message),) = notices(tokenizer, "gemma")
    assert code == "template-mismatch"
    sentence, chosen, own = message.split("\n")
    assert "on a conversation plain they part at character 1 " in sentence
    assert chosen.startswith(
        "chosen:      <>>>start_of_turn>user\\nWhat is the capital of France?<end_"
    )
    assert own.startswith(
        "model's own: <>>>|im_start|>user\\nWhat is the capital of France?<|im_end|>"
    )
    assert own.endswith("<|im_start|>assistant\\nRome.<|im_end|>\\n")


def test_the_models_own_by_another_name_is_no_mismatch(tmp_path):
    tokenizer = text_tokenizer(byte_level(), CHATML, eos_token="<|im_end|>")
    path = tmp_path / "same.jinja"
    path.write_text(CHATML + "{# the same #}")
    assert notices(tokenizer, str(path)) == []
    assert notices(tokenizer, None) == []


def test_a_difference_in_tools_or_reasoning_alone_counts():
    tokenizer = text_tokenizer(byte_level(), CHATML, eos_token="<|im_end|>")
    ((_, message),) = notices(tokenizer, "chatml")
    assert "on a conversation with tools they part" in message
    found = find_mismatch(
        ChatTemplate(
            CHATML.replace("+ message.content", "+ (message.thinking or '') + message.content")
        ),
        ChatTemplate(CHATML),
    )
    assert found is not None
    assert found.specimen == "with reasoning"
    assert found.chosen[found.at :].startswith("Two and three")


def test_a_refusal_is_what_a_template_writes_then():
    refuses = (
        "{%- if messages[0].role == 'system' -%}{{- raise_exception('no system') -}}{%- endif -%}"
    )
    found = find_mismatch(ChatTemplate(PHI3), ChatTemplate(refuses + PHI3))
    assert found is not None
    assert (found.specimen, found.at) == ("with a system message", 0)
    assert "no system" in found.own


def test_variables_of_the_user_reach_both():
    source = CHATML + "{{- style -}}"
    tokenizer = text_tokenizer(byte_level(), source, eos_token="<|im_end|>")
    template = ChatTemplate(source + "{# a copy #}", variables={"style": "dry"})
    assert template_notices(tokenizer, template) == []


def test_tokens_that_the_tokenizer_lacks_are_named():
    tokenizer = text_tokenizer(byte_level(["<|endoftext|>"]), eos_token="<|endoftext|>")
    ((code, message),) = notices(tokenizer, "llama3")
    assert code == "template-tokens"
    assert "<|start_header_id|>, <|end_header_id|>, <|eot_id|>" in message
    assert message.endswith("a reply ends with <|endoftext|>")
    assert notices(tokenizer, "alpaca") == []


def test_long_texts_are_cut_around_the_difference():
    one, other = (ChatTemplate("x" * 2000 + end + "y" * 2000) for end in "ab")
    found = find_mismatch(one, other)
    assert found is not None
    assert found.at == 2000
    assert all(len(line) < 700 for line in found.lines())
    assert "x>>>ay" in found.lines()[1]
