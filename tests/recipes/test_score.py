"""Exact match: words count, their spacing does not."""

from __future__ import annotations

import pytest

from hone.infer.completer import Messages, Reply
from hone.recipes.score import Judged, Score, score
from tests.recipes.test_chat import Parrot


@pytest.mark.parametrize(
    ("expected", "got", "same"),
    [
        ("a b", " a  b\n", True),
        ("a b", "a\tb", True),
        ("a b", "ab", False),
        ("a b", "A b", False),
        ("a", "a.", False),
        ("", "", True),
        ("", " \n", True),
    ],
)
def test_a_reply_matches_by_its_words(expected: str, got: str, *, same: bool) -> None:
    assert Judged("?", expected, got).matches is same


def test_the_score_is_a_share() -> None:
    rows = [Judged("?", "a", reply) for reply in ("a", "b", "a ", "c")]
    assert Score(tuple(rows)).exact_match == 0.5
    assert Score(tuple(rows)).num_matches == 2
    assert Score(()).exact_match == 0.0


def test_the_last_message_is_what_is_expected_and_is_not_shown() -> None:
    class Listener(Parrot):
        def replies(self, conversations: list[Messages], **_: object) -> list[Reply]:
            self.heard = [[dict(message) for message in messages] for messages in conversations]
            return [Reply(f"reply {i}", (1,), "stop", 1) for i in range(len(conversations))]

    listener = Listener("it")
    rows = [
        [{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": "reply 1"}]
        for i in range(2)
    ]
    found = score(listener, rows, max_tokens=5)
    assert [len(messages) for messages in listener.heard] == [1, 1]
    assert [(row.asked, row.got, row.matches) for row in found.rows] == [
        ("ask 0", "reply 0", False),
        ("ask 1", "reply 1", True),
    ]
