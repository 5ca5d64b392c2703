"""Text of tokens as they come: whole characters, and the same text in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.data.tokenizer import TextTokenizer
from hone.infer.text_stream import TextStream, text_of
from tests.folders import tokenizer_folder

TEXTS = [
    "the red cat",
    " two  spaces\n",
    "naïve café",
    "日本語のテキスト",
    "👩‍👩‍👧 and 🏳️‍🌈!",
    "a\N{REPLACEMENT CHARACTER}b",
    "",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(tokenizer_folder(tmp_path_factory.mktemp("tokenizer")))


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text_and_cut_no_character(tokenizer: TextTokenizer, text: str) -> None:
    before, ids = tokenizer.encode("the dog\n"), tokenizer.encode(text)
    stream = TextStream(tokenizer, before)
    pieces = [stream.push(i) for i in ids]
    pieces.append(stream.end())
    assert "".join(pieces) == text == text_of(tokenizer, before, ids)
    said = text.count("\N{REPLACEMENT CHARACTER}")
    assert sum(piece.count("\N{REPLACEMENT CHARACTER}") for piece in pieces) == said


def test_half_a_character_at_the_end_is_said_at_the_end(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode("日")[:2]  # two of three bytes
    stream = TextStream(tokenizer, [])
    assert [stream.push(i) for i in ids] == ["", ""]
    assert stream.end() == tokenizer.decode(ids)
    assert stream.end() == ""


def test_bytes_that_never_make_a_character_do_not_wait_forever(tokenizer: TextTokenizer) -> None:
    (byte,) = tokenizer.encode("日")[1:2]
    stream = TextStream(tokenizer, [])
    pieces = [stream.push(byte) for _ in range(40)]
    assert any(pieces[:10])
    assert set("".join(pieces)) == {"\N{REPLACEMENT CHARACTER}"}


def test_real_tokenizers_keep_their_spaces(shared: Path) -> None:
    for folder in sorted((shared / "tokenizers").iterdir()):
        if not (folder / "tokenizer.json").is_file():
            continue
        tokenizer = TextTokenizer.load(folder)
        text = "Hello, wörld 日本 👩‍👧 x = 12;\n  done"
        prompt = tokenizer.encode("user:\n")
        ids = tokenizer.encode("user:\n" + text)[len(prompt) :]
        stream = TextStream(tokenizer, prompt)
        pieces = [stream.push(i) for i in ids]
        assert "".join([*pieces, stream.end()]) == text, folder.name
