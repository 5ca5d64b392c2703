"""Against `transformers` itself, with real tokenizers, templates and rows."""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.conversation import Message
from hone.data.formats import RowFormat
from hone.data.reader import RowReader
from hone.data.render import Renderer, trained_texts
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from tests.data.small import talk

NAMES = ["qwen2.5", "qwen3"]


@cache
def made(folder: Path, **variables: Any) -> Renderer:
    tokenizer = TextTokenizer.load(folder)
    return Renderer(tokenizer, load_template(tokenizer, variables=variables))


@cache
def theirs(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def their_ids(folder: Path, messages: Any, tools: Any = None, **how: Any) -> list[int]:
    found = theirs(folder).apply_chat_template(
        messages, tools=tools, tokenize=True, return_dict=True, **how
    )
    return list(found["input_ids"])


@pytest.fixture(scope="session", params=NAMES)
def folder(request, shared) -> Path:
    return shared / "tokenizers" / request.param


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PLAIN = TEXT.map(str.strip).filter(bool)
NASTY = st.lists(
    st.sampled_from(
        [
            "<|im_start|>",
            "<|im_end|>",
            "<|endoftext|>",
            "<|im_",
            "end|>",
            "user\n",
            "\n",
            "a",
            "<tool_call>",
            "<think>",
            "<|vision_pad|>",
            " ",
        ]
    )
    | TEXT,
    max_size=5,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(text=NASTY)
def test_encodes_as_transformers(folder, text):
    assert made(folder).tokenizer.encode(text) == theirs(folder).encode(
        text, add_special_tokens=False
    )


def test_names_and_ids_as_transformers(folder):
    ours, other = made(folder).tokenizer, theirs(folder)
    assert (ours.eos_id, ours.bos_id, ours.eos_token) == (
        other.eos_token_id,
        other.bos_token_id,
        other.eos_token,
    )
    assert ours.chat_template == other.chat_template
    assert ours.special_ids <= set(other.added_tokens_decoder)
    assert ours.vocab_size == len(other)
    assert not ours.adds_bos


@settings(max_examples=40, deadline=None)
@given(said=st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=3), system=st.none() | PLAIN)
def test_a_whole_conversation_has_the_ids_of_transformers(folder, said, system):
    if any("</think>" in text or "<|" in text for pair in said for text in pair):
        return
    turns = [
        (role, text)
        for pair in said
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    turns = ([("system", system)] if system else []) + turns
    conversation = talk(*turns)
    examples = made(folder).render(conversation)
    messages = [message.as_template() for message in conversation.messages]
    assert examples[-1].input_ids.tolist() == their_ids(folder, messages)
    if folder.name == "qwen2.5":
        assert len(examples) == 1
    for k in range(len(said)):
        upto = messages[: len(messages) - 2 * (len(said) - k) + 1]
        assert made(folder).prompt(upto) == their_ids(folder, upto, add_generation_prompt=True)


@settings(max_examples=60, deadline=None)
@given(said=st.lists(st.tuples(NASTY, NASTY), min_size=1, max_size=3))
def test_trained_text_is_the_reply_and_its_end(shared, said):
    renderer = made(shared / "tokenizers" / "qwen2.5")
    turns = [
        (role, text)
        for pair in said
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    examples = sorted(renderer.render(talk(*turns)), key=lambda e: e.num_tokens)
    found = sorted(trained_texts(examples, renderer.tokenizer))
    # The tokenizer's own normalisation is the one change that text undergoes.
    assert found == sorted(unicodedata.normalize("NFC", reply) + "<|im_end|>" for _, reply in said)


@settings(max_examples=60, deadline=None)
@given(said=st.lists(st.tuples(NASTY, NASTY), min_size=1, max_size=2), name=NASTY)
def test_control_ids_come_from_the_template_alone(folder, said, name):
    renderer = made(folder)

    def conversation(texts, name):
        turns = [
            Message(role, text, name=name, reasoning=text if role == "assistant" else None)
            for pair in texts
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        tool = {"type": "function", "function": {"name": name, "parameters": {name: [name]}}}
        return talk(("system", name), *turns, ("user", name), ("assistant", name), tools=(tool,))

    def controls(one):
        return [i for i in renderer.render(one)[-1].input_ids.tolist() if i in renderer.control.ids]

    assert controls(conversation(said, name)) == controls(
        conversation([("x", "y")] * len(said), "z")
    )


@settings(max_examples=40, deadline=None)
@given(said=st.lists(st.tuples(NASTY, NASTY, NASTY | st.none()), min_size=1, max_size=3))
def test_before_every_trained_turn_stand_the_tokens_of_inference(folder, said):
    renderer = made(folder)
    turns = [
        one
        for user, reply, reasoning in said
        for one in (Message("user", user), Message("assistant", reply, reasoning=reasoning))
    ]
    messages = [message.as_template() for message in turns]
    examples = renderer.render(talk(*turns))
    found = sorted(((e, a) for e in examples for a, _ in e.trained_spans()), key=lambda one: one[1])
    assert len(found) == len(said)
    for k, (example, start) in enumerate(found):
        assert example.input_ids[:start].tolist() == renderer.prompt(messages[: 2 * k + 1])


def test_real_agent_rows(folder, shared):
    renderer = made(folder)
    rows = list(islice(RowReader(shared / "data" / "tau_airline.jsonl"), 4))
    form = RowFormat()
    for row in rows:
        conversation = form.read(row)
        messages = [message.as_template() for message in conversation.messages]
        raw = json.loads(json.dumps(row.value))
        for message in raw["messages"]:
            message["content"] = message["content"] or ""
            for call in message.get("tool_calls") or []:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        places = [i for i, m in enumerate(raw["messages"]) if m["role"] == "assistant"]
        examples = renderer.render(conversation)
        upto = raw["messages"][: places[-1] + 1] if folder.name == "qwen3" else raw["messages"]
        assert examples[-1].input_ids.tolist() == their_ids(folder, upto, raw["tools"])
        spans = [(e, span) for e in examples for span in e.trained_spans()]
        assert len(spans) == len(places)
        for place, (example, (start, stop)) in list(zip(places, spans, strict=True))[::5]:
            prompt = their_ids(
                folder, raw["messages"][:place], raw["tools"], add_generation_prompt=True
            )
            assert example.input_ids[:start].tolist() == prompt
            assert renderer.prompt(messages[:place], raw["tools"]) == prompt
            assert example.input_ids[stop - 1] == renderer.tokenizer.eos_id


def test_template_variables_reach_the_template(shared):
    renderer = made(shared / "tokenizers" / "qwen3", enable_thinking=False)
    (example,) = renderer.render(talk(("user", "a"), ("assistant", "b")))
    assert trained_texts([example], renderer.tokenizer) == ["b<|im_end|>"]
    whole = renderer.tokenizer.decode(example.input_ids.tolist())
    assert whole.endswith("assistant\n<think>\n\n</think>\n\nb<|im_end|>\n")
