"""A conversation: each partner hears its own replies, and a turn that fails is forgotten by all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from hone.errors import HoneError
from hone.infer.completer import GREEDY, Messages, Reply, Sampling
from hone.recipes.chat import Chat


class Parrot:
    """Answers with how many messages it was given, and keeps them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heard: list[list[dict[str, object]]] = []
        self.fault: BaseException | None = None

    def reply(
        self,
        messages: Messages,
        *,
        tools: Messages = (),
        sampling: Sampling = GREEDY,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        self.heard.append([dict(message) for message in messages])
        if self.fault is not None:
            raise self.fault
        text = f"{self.name} {len(messages)}"
        if on_text is not None:
            for letter in text:
                on_text(letter)
        return Reply(text, (1,), "stop", len(messages))

    def replies(
        self, conversations: Sequence[Messages], *, sampling: Sampling = GREEDY
    ) -> list[Reply]:
        return [self.reply(messages) for messages in conversations]


def test_each_partner_remembers_its_own_replies() -> None:
    base, tuned = Parrot("base"), Parrot("tuned")
    chat = Chat({"base": base, "tuned": tuned}, system="be kind")
    heard: list[tuple[str, str]] = []
    chat.ask("one", on_text=lambda name, piece: heard.append((name, piece)))
    assert "".join(piece for name, piece in heard if name == "tuned") == "tuned 2"
    assert [name for name, _ in heard] == ["base"] * 6 + ["tuned"] * 7
    replies = chat.ask("two")
    assert list(replies) == ["base", "tuned"]
    assert [message["content"] for message in tuned.heard[1]] == [
        "be kind",
        "one",
        "tuned 2",
        "two",
    ]
    assert [message["content"] for message in base.heard[1]] == ["be kind", "one", "base 2", "two"]
    assert [message["role"] for message in base.heard[1]] == ["system", "user", "assistant", "user"]


def test_reset_keeps_only_the_system_message() -> None:
    tuned = Parrot("tuned")
    chat = Chat({"tuned": tuned}, system="be kind")
    chat.ask("one")
    chat.reset()
    chat.ask("two")
    assert [message["content"] for message in tuned.heard[1]] == ["be kind", "two"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), HoneError("too long")])
def test_a_turn_that_fails_is_forgotten_by_all(fault: BaseException) -> None:
    base, tuned = Parrot("base"), Parrot("tuned")
    chat = Chat({"base": base, "tuned": tuned})
    tuned.fault = fault
    with pytest.raises(type(fault)):
        chat.ask("one")
    tuned.fault = None
    chat.ask("two")
    assert [message["content"] for message in base.heard[1]] == ["two"]
    assert [message["content"] for message in tuned.heard[1]] == ["two"]
