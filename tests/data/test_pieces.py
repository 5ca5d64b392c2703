"""Encoding piece by piece equals the tokenizer's own encoding of the whole text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from hone.data.control import ControlTokens
from hone.data.pieces import Pieces
from tests.data.small import NAMES, byte_level, family, sentence_piece, text_tokenizer

WORDS = st.sampled_from(
    [
        "Hello",
        " ",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "the",
        "café",
        "東京",
        "é",
        "1",
        "'s",
        ".",
        "<",
        "|",
        ">",
        "\u2028",
        " x",
    ]
)


def composed(special):
    backend = byte_level(special)
    backend.normalizer = normalizers.NFC()
    return backend


def _pieces(tokenizer):
    return Pieces(tokenizer, ControlTokens([]))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_the_whole(name, data):
    tokenizer, _ = family(name)
    tokens = st.sampled_from([token.content for token in tokenizer.added])
    text = "".join(data.draw(st.lists(WORDS | tokens, max_size=12)))
    pieces = _pieces(tokenizer)
    found = [int(i) for ids in pieces.ids_of(pieces.split(text), "") for i in ids]
    assert found == tokenizer.encode(text)


@settings(max_examples=150, deadline=None)
@given(
    flags=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=3, max_size=3),
    words=st.lists(WORDS | st.sampled_from(["<a>", "<ab>", "<b>"]), max_size=12),
    kind=st.sampled_from(["byte", "composed", "legacy", "first", "always"]),
)
def test_tokens_that_swallow_space(flags, words, kind):
    backend = {
        "byte": lambda: byte_level(["<x>"]),
        "composed": lambda: composed(["<x>"]),
        "always": lambda: sentence_piece("always"),
        "legacy": lambda: sentence_piece("always", legacy=True),
        "first": lambda: sentence_piece("first"),
    }[kind]()
    for text, (left, right, normal) in zip(["<a>", "<ab>", "<b>"], flags, strict=True):
        normal = (
            normal and kind != "legacy"
        )  # what no piecewise encoding can equal is remarked instead
        token = AddedToken(text, lstrip=left, rstrip=right, normalized=normal)
        backend.add_special_tokens([token])
    tokenizer = text_tokenizer(backend)
    pieces = _pieces(tokenizer)
    text = "".join(words)
    found = [int(i) for ids in pieces.ids_of(pieces.split(text), "") for i in ids]
    assert found == tokenizer.encode(text)


def test_one_piece_is_encoded_once():
    tokenizer, _ = family("byte-level")
    calls: list[str] = []

    class Counting(type(tokenizer)):
        def encode_many(self, texts, **how):
            calls.extend(texts)
            return super().encode_many(texts, **how)

    counting = Counting(tokenizer._backend, config={"eos_token": "<|im_end|>"})
    pieces = _pieces(counting)
    for _ in range(3):
        pieces.fetch([("the same policy", False, "")] * 2)
        pieces.ids("the same policy", continues=False, mark="")
    assert calls == ["the same policy"]


def test_ids_are_int32_and_read_only():
    tokenizer, _ = family("byte-level")
    ids = _pieces(tokenizer).ids("hello", continues=False, mark="")
    assert ids.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_a_tokenizer_that_cannot_be_cut_is_noticed():
    backend = sentence_piece("always", legacy=True)
    backend.add_special_tokens([AddedToken("<a>", normalized=True)])
    pieces = _pieces(text_tokenizer(backend))
    assert not pieces.equal_the_whole("<a>hello")
    assert pieces.equal_the_whole("hello")
