"""Tokenizers of every family, made in memory, and conversations to render with them."""

from __future__ import annotations

from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from hone.data.conversation import Conversation, Message
from hone.data.example import Origin
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer

_TEXT = [
    "user assistant system tool Hello, how are you? I am fine. Paris is the capital of France.",
    "The quick brown fox jumps over the lazy dog 0123456789 times; (brackets) [too] {and} <these>.",
    "You may call functions, and get a result.\n\nNew lines\n\nas well.\t Tabs, café, naïve, 東京.",
] * 3
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ALPHABET = pre_tokenizers.ByteLevel.alphabet()

CHATML = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + "
    "'<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
LLAMA2 = (
    "{%- for message in messages -%}"
    "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('roles must alternate user/assistant') -}}{%- endif -%}"
    "{%- if message.role == 'user' -%}{{- bos_token + '[INST] ' + message.content.strip() + ' [/INST]' -}}"
    "{%- else -%}{{- ' ' + message.content.strip() + ' ' + eos_token -}}{%- endif -%}{%- endfor -%}"
)
PHI3 = (
    "{%- for message in messages -%}{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}"
)
BARE = (
    "{%- for message in messages -%}{{- message.role + ': ' + message.content + '\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'assistant: ' -}}{%- endif -%}"
)


def byte_level(
    special: list[str] | None = None, *, plain: list[str] | None = None, prefix: bool = False
) -> Tokenizer:
    """Qwen's kind; with a prefix GPT-2's."""
    backend = Tokenizer(models.BPE())
    state: Any = backend
    state.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    if prefix:
        state.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=_ALPHABET, show_progress=False)
    backend.train_from_iterator(_TEXT, trainer)
    backend.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t in special or ["<|im_start|>", "<|im_end|>"]
        ]
    )
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in plain or []])
    return backend


def sentence_piece(
    scheme: str, *, legacy: bool = False, special: list[str] | None = None
) -> Tokenizer:
    """Llama's kind: Metaspace (`scheme` first, always or never), or the older Prepend normalizer."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))],
        show_progress=False,
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.train_from_iterator(_TEXT, trainer)
    state: Any = backend
    if legacy:
        state.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        state.pre_tokenizer = None
    else:
        state.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    state.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ["<s>", "</s>", *(special or [])]]
    )
    return backend


def phi3() -> Tokenizer:
    """Control tokens that swallow the space after them."""
    backend = sentence_piece("first", legacy=True)
    backend.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False, rstrip=True)
            for t in ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
        ]
    )
    return backend


def words() -> Tokenizer:
    """A vocabulary of words in which control tokens are words too."""
    vocab = {
        w: i
        for i, w in enumerate(["[UNK]", "<|im_start|>", "<|im_end|>", "user", "hello", "assistant"])
    }
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in ["<|im_start|>", "<|im_end|>"]]
    )
    return backend


def text_tokenizer(backend: Tokenizer, template: str | None = None, **config: Any) -> TextTokenizer:
    """The backend as a model folder's tokenizer."""
    return TextTokenizer(backend, config=config, chat_template=template)


def with_template(
    backend: Tokenizer, template: str, **config: Any
) -> tuple[TextTokenizer, ChatTemplate]:
    tokenizer = text_tokenizer(backend, template, **config)
    return tokenizer, load_template(tokenizer)


FAMILIES: dict[str, tuple[TextTokenizer, ChatTemplate]] = {}


def family(name: str) -> tuple[TextTokenizer, ChatTemplate]:
    """A tokenizer with its template, made once."""
    if name not in FAMILIES:
        FAMILIES[name] = {
            "byte-level": lambda: with_template(byte_level(), CHATML, eos_token="<|im_end|>"),
            "byte-level-prefix": lambda: with_template(
                byte_level(prefix=True), CHATML, eos_token="<|im_end|>"
            ),
            "not-special": lambda: with_template(
                byte_level(["<|end|>"], plain=["<|im_start|>", "<|im_end|>", "<tool_call>"]),
                CHATML,
                eos_token="<|end|>",
            ),
            "llama2-legacy": lambda: with_template(
                sentence_piece("always", legacy=True), LLAMA2, bos_token="<s>", eos_token="</s>"
            ),
            "llama2-first": lambda: with_template(
                sentence_piece("first"), LLAMA2, bos_token="<s>", eos_token="</s>"
            ),
            "llama2-always": lambda: with_template(
                sentence_piece("always"), LLAMA2, bos_token="<s>", eos_token="</s>"
            ),
            "metaspace-bare": lambda: with_template(
                sentence_piece("first"), BARE, bos_token="<s>", eos_token="</s>"
            ),
            "phi3": lambda: with_template(phi3(), PHI3, bos_token="<s>", eos_token="<|end|>"),
            "words": lambda: with_template(words(), CHATML, eos_token="<|im_end|>"),
        }[name]()
    return FAMILIES[name]


NAMES = [
    "byte-level",
    "byte-level-prefix",
    "not-special",
    "llama2-legacy",
    "llama2-first",
    "llama2-always",
    "metaspace-bare",
    "phi3",
    "words",
]


def talk(*said: tuple[str, str] | Message, tools: tuple[Any, ...] = ()) -> Conversation:
    """A conversation from (role, content) pairs and whole messages."""
    messages = tuple(one if isinstance(one, Message) else Message(*one) for one in said)
    return Conversation(messages, Origin("talk.jsonl", 1), tools)
