"""Cutting: no text is lost, no chunk is longer than it may be, paragraphs and sentences stay whole where they can."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.data.documents.chunks import CUT_AFTER, Sizes, cut
from hone.data.documents.passage import Passage
from tests.data.documents.papers import paragraph


def passages(*texts: str) -> list[Passage]:
    return [Passage(text, "paragraph", number) for number, text in enumerate(texts, 1)]


WORDS = st.text("abc.?! \n", min_size=1, max_size=400).map(str.strip).filter(bool)


@given(st.lists(WORDS, min_size=1, max_size=12), st.integers(100, 600))
def test_all_of_the_text_is_in_the_chunks(texts: list[str], size: int) -> None:
    chunks = list(cut(passages(*texts), Sizes(size, 0, 1)))
    assert all(0 < len(chunk.text) <= size for chunk in chunks)

    def letters(text: str) -> str:
        return re.sub(r"\s", "", text)

    assert letters("".join(chunk.text for chunk in chunks)) == letters("".join(texts))


@given(st.lists(WORDS, min_size=2, max_size=8), st.integers(120, 400), st.integers(1, 60))
def test_what_overlaps_stands_in_both(texts: list[str], size: int, overlap: int) -> None:
    chunks = list(cut(passages(*texts), Sizes(size, overlap, 1)))
    plain = "".join("".join(texts).split())
    assert all(len(chunk.text) <= size for chunk in chunks)
    total = sum(len("".join(chunk.text.split())) for chunk in chunks)
    assert len(plain) <= total <= len(plain) + overlap * (len(chunks) - 1)


def test_whole_paragraphs_while_they_fit() -> None:
    texts = [paragraph(i, 4) for i in range(12)]
    chunks = list(cut(passages(*texts), Sizes()))
    assert "\n\n".join(chunk.text for chunk in chunks) == "\n\n".join(texts)
    assert all(CUT_AFTER <= len(chunk.text) <= 4000 for chunk in chunks[:-1])
    assert chunks[0].place.startswith("paragraphs 1-")


def test_a_long_paragraph_ends_at_a_sentence() -> None:
    chunks = list(cut(passages("short.", paragraph(1, 200)), Sizes(1000, 0, 1)))
    assert all(chunk.text.endswith(".") for chunk in chunks)
    assert chunks[0].text.startswith("short.\n\nMerchants")
    assert chunks[-1].place == "paragraph 2"


def test_the_overlap_begins_at_a_word() -> None:
    chunks = list(cut(passages(*(paragraph(i, 6) for i in range(8))), Sizes(1500, 120, 1)))
    for one, following in pairwise(chunks):
        shared = following.text.split("\n\n")[0]
        assert 0 < len(shared) <= 120
        assert one.text.endswith(shared)
        assert one.text[-len(shared) - 1].isspace()


@pytest.mark.parametrize("text", ["x" * 5000, "你好。" * 2000])
def test_text_without_spaces_is_cut_all_the_same(text: str) -> None:
    chunks = list(cut(passages(text), Sizes(700, 0, 1)))
    assert "".join(chunk.text for chunk in chunks) == text
