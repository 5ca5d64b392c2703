"""A new tokenizer: any text comes back, digits stand alone, and transformers reads the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hone.data.byte_tokenizer import new_byte_tokenizer
from hone.data.tokenizer import TextTokenizer

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return new_byte_tokenizer(
        tmp_path_factory.mktemp("tokenizer"),
        ["the red cat saw the red dog in 2031"] * 3,
        vocab_size=300,
        control_tokens=CONTROL,
        end_of_text="<|im_end|>",
        padding="<|endoftext|>",
        chat_template="{{ messages[0].content }}",
    )


@pytest.mark.parametrize(
    "text", ["the red cat", "Ünïcode 日本 👩‍👧\n\ttab", "12 345, 2031-03-05", ""]
)
def test_any_text_comes_back(made: TextTokenizer, text: str) -> None:
    assert made.decode(made.encode(text)) == text


def test_each_digit_is_a_token(made: TextTokenizer) -> None:
    tokens = [made.token(i) for i in made.encode("in 2031-03")]
    assert [token for token in tokens if any(c.isdigit() for c in token)] == list("203103")


def test_control_tokens_come_first_and_one_ends_texts(made: TextTokenizer) -> None:
    assert [made.id_of(token) for token in CONTROL] == [0, 1, 2]
    assert made.special_ids == {0, 1, 2}
    assert made.eos_id == 2
    assert made.chat_template == "{{ messages[0].content }}"


def test_transformers_reads_the_same(made: TextTokenizer) -> None:
    folder = made.folder
    assert isinstance(folder, Path)
    theirs = AutoTokenizer.from_pretrained(folder)
    text = "the red cat<|im_end|>\n2031"
    assert theirs(text)["input_ids"] == made.encode(text)
    assert theirs.eos_token == "<|im_end|>"
    assert theirs.pad_token == "<|endoftext|>"
