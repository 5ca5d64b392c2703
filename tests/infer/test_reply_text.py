"""Pieces joined are the text up to the first stop text, at whatever token it falls."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.tokenizer import TextTokenizer
from hone.infer.reply_text import ReplyText
from hone.infer.writer import Chance
from tests.folders import tokenizer_folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(tokenizer_folder(tmp_path_factory.mktemp("tokenizer")))


LETTERS = st.text(alphabet="ab é\n", max_size=30)
STOPS = st.lists(st.text(alphabet="ab é\n", min_size=1, max_size=4), max_size=3)


@settings(max_examples=60)
@given(text=LETTERS, stops=STOPS)
def test_what_is_said_is_the_text_before_the_first_stop(
    tokenizer: TextTokenizer, text: str, stops: list[str]
) -> None:
    reply = ReplyText(tokenizer, [], stops)
    ids = tokenizer.encode(text)
    pieces = []
    taken = 0
    for token in ids:
        pieces.append(reply.push(Chance(token, 0.0)))
        taken += 1
        if reply.is_stopped:
            break
    pieces.append(reply.end())
    said = [piece for piece in pieces if piece is not None]
    places = [text.index(stop) for stop in stops if stop in text]
    assert "".join(piece.text for piece in said) == (text[: min(places)] if places else text)
    assert reply.is_stopped == bool(places)
    assert sum(piece.tokens for piece in said) == sum(len(piece.chances) for piece in said) <= taken
    if not places:
        assert [chance.token_id for piece in said for chance in piece.chances] == ids


def test_nothing_waits_that_cannot_begin_a_stop(tokenizer: TextTokenizer) -> None:
    reply = ReplyText(tokenizer, [], ["aab"])
    first, second, third = (reply.push(Chance(tokenizer.encode(x)[0], 0.0)) for x in "bac")
    assert first is not None
    assert first.text == "b"
    assert second is None  # an "a" may begin "aab"
    assert third is not None
    assert third.text == "ac"
