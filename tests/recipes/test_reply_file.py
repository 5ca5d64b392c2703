"""Replies as lines: whatever they hold comes back, and no reader finds another number of lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.errors import DataError
from hone.recipes.reply_file import as_line, as_text, from_line, from_text

ANY = st.text(
    st.characters(exclude_categories=())
    | st.sampled_from("\\nru0085\n\r\t\x0b\x0c\x1c\x85\u2028\u2029\ufeff")
)


@given(st.lists(ANY))
def test_what_is_written_reads_back(replies: list[str]) -> None:
    text = as_text(replies)
    assert from_text(text.encode().decode()) == replies
    assert len(text.splitlines()) == len(replies)


@given(ANY)
def test_a_reply_is_one_line(reply: str) -> None:
    line = as_line(reply)
    assert "\n" not in line
    assert len((line + "x").splitlines()) == 1
    assert from_line(line) == reply


@given(ANY, ANY)
def test_two_replies_never_look_alike(one: str, other: str) -> None:
    assert (as_line(one) == as_line(other)) == (one == other)


def test_a_plain_reply_stands_as_it_is() -> None:
    assert as_line('Tür "zu"\tÉté 今天') == 'Tür "zu"\tÉté 今天'
    assert as_line("a\nb\\n") == r"a\nb\\n"


@pytest.mark.parametrize("line", ["\\", "a\\x", "\\u12", "\\u00ZZ"])
def test_a_line_that_was_never_written_is_refused(line: str) -> None:
    with pytest.raises(DataError, match="backslash"):
        from_line(line)
