"""What moulds cast is what the template writes, row by row: the same tokens, weights and remarks."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.conversation import Conversation, Message
from hone.data.mould import Mould
from hone.data.render import Rendered, Renderer
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from tests.data.small import NAMES, byte_level, family, talk, text_tokenizer

TRIMS = (
    "{%- for message in messages -%}{{- '<|im_start|>' ~ message['role'] ~ '\\n' -}}"
    "{{- message['content'] | trim -}}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
THINKS = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- set content = message.content -%}{%- set thought = '' -%}"
    "{%- if message.reasoning_content is string -%}{%- set thought = message.reasoning_content -%}"
    "{%- elif '</think>' in content -%}"
    "{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}{%- endif -%}"
    "{%- if message.role == 'assistant' and (loop.last or thought) and loop.index0 > 0 -%}"
    "{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}{%- endif -%}"
    "{%- if content and content[:1] != '!' -%}{{- content -}}{%- elif content -%}{{- content[1:] + '?' -}}"
    "{%- endif -%}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
JOINS = (
    "{{- messages | map(attribute='content') | join('<|im_end|>') -}}{{- '<|im_end|>' -}}"
    "{%- if add_generation_prompt -%}{{- '' -}}{%- endif -%}"
)
QUOTES = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{{- message.content | tojson -}}{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
COUNTS = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{{- message.content -}}{%- if message.content | length > 7 -%}{{- '!' -}}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
MACRO = (
    "{%- macro write(m) -%}{{- '<|im_start|>' + m.role + '\\n' + m.content -}}{%- endmacro -%}"
    "{%- for message in messages -%}{{- write(message) | trim + '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
OTHERS = {
    "trims": TRIMS, "thinks": THINKS, "joins": JOINS, "quotes": QUOTES, "counts": COUNTS, "macro": MACRO,
}  # fmt: skip
_MADE: dict[str, tuple[TextTokenizer, ChatTemplate]] = {}


def _family(name: str) -> tuple[TextTokenizer, ChatTemplate]:
    if name in NAMES:
        return family(name)
    if name not in _MADE:
        tokenizer = text_tokenizer(byte_level(), OTHERS[name], eos_token="<|im_end|>")
        _MADE[name] = (tokenizer, load_template(tokenizer))
    return _MADE[name]


SAID = st.sampled_from(
    ["", "Hi", " Hi", "Hi ", "\n", "Hello, how are you?", "!now", "a\n\nb", "é東 \u200f", "<", ">x", "im_end|>",
     "<think>\nso\n</think>\n\nyes", "</think>", "a</think>b</think>c", "<|im_end|>", "</s>", '"q" \\ {x}', "12345678"]
) | st.text(max_size=12)  # fmt: skip
SHAPES = [
    ("user", "assistant"),
    ("system", "user", "assistant"),
    ("user", "assistant", "user", "assistant"),
    ("user", "assistant", "system", "user", "assistant", "user"),
    ("developer", "user", "assistant", "assistant"),
]


@st.composite
def rows(draw: st.DrawFn) -> list[Conversation]:
    """Rows of few structures, so that most fall into moulds made by others."""
    roles = draw(st.sampled_from(SHAPES))
    thinks = draw(st.booleans())
    weight = draw(st.sampled_from([None, 0.5, 0.0]))
    made = []
    for _ in range(draw(st.integers(3, 8))):
        messages = []
        for place, role in enumerate(roles):
            reasoning = draw(SAID) if thinks and role == "assistant" else None
            own = weight if role == "assistant" and place == 1 else None
            messages.append(Message(role, draw(SAID), reasoning=reasoning, weight=own))
        made.append(talk(*messages))
    return made


def assert_same(got: Rendered, want: Rendered) -> None:
    assert (got.fault is None) == (want.fault is None)
    assert len(got.examples) == len(want.examples)
    for a, b in zip(got.examples, want.examples, strict=True):
        assert a.input_ids.tolist() == b.input_ids.tolist()
        assert a.weight.tolist() == b.weight.tolist()
        assert a.weight.dtype == np.float32
    assert set(got.remarks) - {"pieces-differ"} == set(want.remarks) - {"pieces-differ"}


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
@given(conversations=rows(), train_on=st.sampled_from(["all", "last"]))
def test_moulds_cast_what_is_written_with_care(
    name: str, conversations: list[Conversation], train_on: str
) -> None:
    made = Renderer(*_family(name), train_on)
    careful = Renderer(*_family(name), train_on, careful=True)
    for one in conversations:  # one by one: a mould that one row makes serves the next
        (got,), (want,) = made.render_all([one]), careful.render_all([one])
        assert_same(got, want)


def _casts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counted = [0]
    cast = Mould.cast

    def counting(self, *args, **kwargs):
        counted[0] += 1
        return cast(self, *args, **kwargs)

    monkeypatch.setattr(Mould, "cast", counting)
    return counted


@pytest.mark.parametrize(
    "name", ["byte-level", "trims", "thinks", "counts", "phi3", "llama2-first"]
)
def test_moulds_are_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = _casts(monkeypatch)
    made = Renderer(*_family(name))
    for place in range(10):
        assert made.render(talk(("user", f"Q{place}"), ("assistant", f"No. {place}")))
    assert counted[0] >= 7


@pytest.mark.parametrize("name", ["joins", "quotes", "macro"])
def test_what_cannot_be_traced_is_written_with_care(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = _casts(monkeypatch)
    made = Renderer(*_family(name))
    for place in range(5):
        made.render_all([talk(("user", f"Q{place}"), ("assistant", f'No. "{place}"'))])
    assert counted[0] == 0


@pytest.mark.parametrize("model", ["qwen2.5", "qwen3"])
def test_real_rows_on_real_templates(
    shared: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = TextTokenizer.load(shared / "tokenizers" / model)
    template = load_template(tokenizer)
    counted = _casts(monkeypatch)
    made = Renderer(tokenizer, template, encoder=tokenizer.fast_encoder(None))
    careful = Renderer(tokenizer, template, careful=True)
    lines = (shared / "data" / "gsm8k_train.jsonl").read_text().splitlines()[:64]
    turns = [json.loads(line) for line in lines]
    conversations = [
        talk(("user", a["question"]), ("assistant", a["answer"]), ("user", b["question"]), ("assistant", b["answer"]))
        for a, b in pairwise(turns)
    ]  # fmt: skip
    for got, want in zip(
        [made.render_all([one])[0] for one in conversations],
        careful.render_all(conversations),
        strict=True,
    ):
        assert_same(got, want)
    assert counted[0] > len(conversations) // 2
