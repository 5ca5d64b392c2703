"""What is trained is what the assistant said and its end of turn, and nothing more: in every family, by two
methods that share no code with Hone's. `transformers` renders each conversation up to each turn, and the
prompt before it; and where a template marks its replies, `transformers` tells where the marks lie."""

from __future__ import annotations

import unicodedata
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from hone.data.conversation import Conversation, Message, ToolCall
from hone.data.named_templates import NAMED
from hone.data.render import Renderer, trained_texts
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from tests.data.families import FAMILIES, renderer_by_name, renderer_of
from tests.data.small import talk

ODD = [
    "", " ", "\n", "\n\n", "  x  ", "\tx\n", "Hello.", "Paris, 東京.", "👩‍👩‍👧 🇫🇷", "e\u0301a\u0308", "\u0301",
    "\u202eabc\u202c", "\u200fשלום", "\u2028", "\u00a0", "\x00", "{{ x }}", "{% if %}", "user\n", "[INST]",
    "### Response:\n", "assistant", "<think>", "</think>", "<tool_call>", "é" * 40, "0123456789" * 5,
]  # fmt: skip
NAMES_OF_OURS = sorted(NAMED)
REFUSES_CALLS = {"alpaca", "gemma", "human", "llama2", "phi", "plain"}
TRIMS = {"gemma", "llama2", "llama3"}
# What stands behind the end of a turn in our named templates.
BEHIND = dict.fromkeys(
    ["chatml", "gemma", "human", "phi", "plain", "qwen", "qwen3", "qwen3_nothink"], "\n"
)
BEHIND["alpaca"] = "\n\n"


def texts(tokens=()):
    """Texts: odd ones, random ones, and such as spell control tokens or their halves."""
    forged = [t for token in tokens for t in (token, token[:-1], token[1:], token[:2], token * 2)]
    part = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    if forged:
        part |= st.sampled_from(forged)
    return st.lists(part, max_size=4).map("".join)


def replies(text):
    """What an assistant says: not with a thought in tags at its beginning, which is told as reasoning (see
    test_wants)."""
    return text.map(lambda said: f".{said}" if said.startswith("<think>") else said)


@st.composite
def conversations(draw, text, *, system, inside, alternates, tools, reasoning, turns=4):
    """A conversation with what a family has forms for."""
    said: list[Message] = []
    schema = ()
    if system and draw(st.booleans()):
        said.append(Message("system", draw(text)))
    if tools and draw(st.booleans()):
        name = draw(text)
        schema = ({"type": "function", "function": {"name": name, "parameters": {name: name}}},)
    for turn in range(draw(st.integers(1, turns))):
        if inside and draw(st.integers(0, 3)) == 0:
            said.append(Message("system", draw(text)))
        if alternates or turn == 0 or draw(st.integers(0, 5)):
            said.append(Message("user", draw(text)))
        thought = draw(st.none() | text) if reasoning else None
        if tools and draw(st.integers(0, 2)) == 0:
            arguments = draw(st.dictionaries(text, text, max_size=2))
            calls = tuple(
                ToolCall(draw(text), arguments, "call00001") for _ in range(draw(st.integers(1, 2)))
            )
            said.append(Message("assistant", draw(replies(text)), thought, calls))
            for _ in calls:
                said.append(Message("tool", draw(text), tool_call_id="call00001", name=draw(text)))
            thought = draw(st.none() | text) if reasoning else None
        said.append(Message("assistant", draw(replies(text)), thought))
    if draw(st.integers(0, 3)) == 0:
        said.append(Message("user", draw(text)))
    return Conversation(tuple(said), talk().origin, schema)


def theirs(renderer: Renderer, messages, tools=(), *, prompt=False, marks=False):
    """The text of `transformers`, or where it says that the marks of the replies lie."""
    (text,), marked = render_jinja_template(
        [messages],
        tools=list(tools) or None,
        chat_template=renderer.template.source,
        add_generation_prompt=prompt,
        return_assistant_tokens_mask=marks,
        **renderer.tokenizer.special_names,
        **renderer.template.given,
    )
    return (text, marked[0]) if marks else text


def expected(
    renderer: Renderer, conversation: Conversation, *, end: str, behind: str, closes: bool
) -> list[str]:
    """What inference would be asked to write for each turn, by rendering up to it and the prompt before it."""
    messages = [message.as_template() for message in conversation.messages]
    found = []
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            text = theirs(renderer, messages[: place + 1], conversation.tools)
            before = theirs(renderer, messages[:place], conversation.tools, prompt=True)
            if not text.startswith(before):  # two replies in a row, the first of them rewritten
                assert messages[place - 1]["role"] == "assistant"
                heading = before.removeprefix(
                    theirs(renderer, messages[:place], conversation.tools)
                )
                calm = harmless(
                    [messages[: place + 1], conversation.tools], renderer.control.strings
                )
                before = text[: theirs(renderer, *calm).rindex(heading) + len(heading)]
                if "{%- generation -%}" in renderer.template.source:
                    marks = theirs(renderer, messages[: place + 1], conversation.tools, marks=True)[
                        1
                    ]
                    before = text[: marks[-1][0]]
            assert text.endswith(behind)
            reply = text[len(before) : len(text) - len(behind)]
            assert reply.endswith(end) or not closes
            found.append(reply if closes else reply + end)
            # A template may take a thought out of the content, and all of them may trim it.
            content = message["content"].strip()
            assert content in found[-1] or "</think>" in content
    return found


def harmless(value, tokens):
    """The same value with no control token in any text, letter for letter as long."""
    if isinstance(value, str):
        for token in sorted(tokens, key=len, reverse=True):
            value = value.replace(token, "x" * len(token))
        return value
    if isinstance(value, dict):
        return {harmless(k, tokens): harmless(v, tokens) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [harmless(one, tokens) for one in value]
    return value


def check(
    renderer: Renderer,
    conversation: Conversation,
    *,
    end: str,
    behind: str,
    closes: bool = True,
    nfc: bool = False,
):
    """Trained text, the tokens before it, and whence control tokens come."""
    tokenizer, control = renderer.tokenizer, renderer.control
    wanted = expected(renderer, conversation, end=end, behind=behind, closes=closes)
    if nfc:
        wanted = [unicodedata.normalize("NFC", text) for text in wanted]
    examples = renderer.render(conversation)
    spans = sorted(
        ((start, stop, n) for n, one in enumerate(examples) for start, stop in one.trained_spans()),
    )
    texts = [
        tokenizer.decode_after(ids[:start].tolist(), ids[start:stop].tolist())
        for start, stop, n in spans
        for ids in [examples[n].input_ids]
    ]
    assert sorted(texts) == sorted(wanted)
    # Before each turn stand the tokens of inference; after it, its end, trained.
    messages = [message.as_template() for message in conversation.messages]
    places = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    prompts = sorted(renderer.prompt(messages[:place], conversation.tools) for place in places)
    assert sorted(examples[n].input_ids[:start].tolist() for start, _, n in spans) == prompts
    for start, stop, n in spans:
        assert int(examples[n].input_ids[stop - 1]) == tokenizer.id_of(end)
        assert start < stop
    # The control tokens are those of the same conversation with nothing forged in it.
    quiet = harmless([messages, list(conversation.tools)], control.strings)
    for place in places:
        text = theirs(renderer, quiet[0][:place], quiet[1], prompt=True)
        ours = renderer.prompt(messages[:place], conversation.tools)
        assert [i for i in ours if i in control.ids] == [
            i for i in tokenizer.encode(text) if i in control.ids
        ]


def forms(name):
    family = FAMILIES[name]
    return {
        key: getattr(family, key)
        for key in ("system", "inside", "alternates", "tools", "reasoning")
    }


def prove_family(name, data):
    family, renderer = FAMILIES[name], renderer_of(name)
    text = texts(sorted(renderer.control.strings))
    conversation = data.draw(conversations(text, **forms(name)))
    check(renderer, conversation, end=family.end, behind=family.after, closes=family.closes)


def prove_named(name, data):
    renderer = renderer_by_name(name)
    calls = name not in REFUSES_CALLS
    conversation = data.draw(
        conversations(
            texts(sorted(renderer.control.strings)),
            system=True,
            inside=True,
            alternates=name in ("llama2", "mistral"),  # nothing stands between two replies there
            tools=calls,
            reasoning=name in ("chatml", "qwen3", "mistral"),
        )
    )
    check(
        renderer,
        conversation,
        end=NAMED[name].end or "<eos>",
        behind=BEHIND.get(name, ""),
    )


@cache
def real(folder):
    tokenizer = TextTokenizer.load(folder)
    return Renderer(tokenizer, load_template(tokenizer))


def prove_real(folder, data):
    renderer = real(folder)
    tokens = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_pad|>", "<|fim_pad|>"]
    conversation = data.draw(
        conversations(
            texts(tokens), system=True, inside=True, alternates=False, tools=True, reasoning=True
        )
    )
    assume(conversation.messages[0].role != "assistant")
    check(renderer, conversation, end="<|im_end|>", behind="\n", nfc=True)


def prove_marks(name, data):
    """Whole rows against `transformers`: text, and the spans between its marks."""
    renderer = renderer_of(name)
    conversation = data.draw(conversations(texts(), **forms(name)))
    messages = [message.as_template() for message in conversation.messages]
    places = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    found = sorted(trained_texts(renderer.render(conversation), renderer.tokenizer))
    wanted = []
    for place in places:
        text, marks = theirs(renderer, messages[: place + 1], conversation.tools, marks=True)
        start, stop = marks[-1]
        reply = text[start:stop]
        wanted.append(reply if FAMILIES[name].closes else reply + FAMILIES[name].end)
    assert found == sorted(wanted)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40)
@given(data=st.data())
def test_families(name, data):
    prove_family(name, data)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40)
@given(said=st.lists(texts(), min_size=4, max_size=4), thought=texts())
def test_families_row_after_row_of_one_structure(name, said, thought):
    """Rows that are alike but for their texts take a shorter way."""
    assume(not any(text.startswith("<think>") for text in said))
    family = FAMILIES[name]
    reply = Message("assistant", said[3], thought if family.reasoning else None)
    conversation = talk(("user", said[0]), ("assistant", said[1]), ("user", said[2]), reply)
    check(
        renderer_of(name),
        conversation,
        end=family.end,
        behind=family.after,
        closes=family.closes,
    )


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25)
@given(data=st.data())
def test_families_against_the_marks_of_transformers(name, data):
    prove_marks(name, data)


@pytest.mark.parametrize("name", NAMES_OF_OURS)
@settings(max_examples=40)
@given(data=st.data())
def test_named_templates(name, data):
    prove_named(name, data)


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
@settings(max_examples=60)
@given(data=st.data())
def test_real_tokenizers(shared, name, data):
    prove_real(shared / "tokenizers" / name, data)


def long_talk(turns: int) -> Conversation:
    """A conversation of many turns, some of which spell control tokens."""
    odd = [text for text in ODD if text.strip()]
    said = [
        (role, f"{odd[(turn * 3 + n) % len(odd)]} {turn} <|im_end|>")
        for turn in range(turns)
        for n, role in enumerate(("user", "assistant"))
    ]
    return talk(*said)


@pytest.mark.parametrize("name", ["chatml", "a template that drops earlier reasoning"])
def test_two_hundred_turns(name):
    family = FAMILIES[name]
    check(renderer_of(name), long_talk(100), end=family.end, behind=family.after)


def test_two_hundred_turns_of_a_real_tokenizer(shared):
    renderer = real(shared / "tokenizers" / "qwen2.5")
    check(renderer, long_talk(100), end="<|im_end|>", behind="\n", nfc=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=1000)
@given(data=st.data())
def test_families_at_full_size(name, data):
    prove_family(name, data)
    prove_marks(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES_OF_OURS)
@settings(max_examples=1000)
@given(data=st.data())
def test_named_templates_at_full_size(name, data):
    prove_named(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
@settings(max_examples=2000)
@given(data=st.data())
def test_real_tokenizers_at_full_size(shared, name, data):
    prove_real(shared / "tokenizers" / name, data)
