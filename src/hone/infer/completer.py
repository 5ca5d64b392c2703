"""What it takes to answer: messages and settings in, a reply out. It knows no model and no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from hone.errors import ConfigError

Messages = Sequence[Mapping[str, Any]]
"""Messages as chat templates read them: `{"role": …, "content": …}`."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop at the latest."""

    max_tokens: int = 512
    """Longest reply, in tokens; shorter where the model's own limit is near."""
    temperature: float = 0.0
    """0 always takes the likeliest token; higher draws more freely."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    seed: int | None = None
    """Makes drawing repeatable; unset draws anew each time."""

    def __post_init__(self) -> None:
        rules = {
            "max_tokens: at least 1": self.max_tokens >= 1,
            "temperature: 0 or more, at most 100": 0 <= self.temperature <= 100,
            "top_p: above 0, at most 1": 0 < self.top_p <= 1,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ConfigError(f"sampling cannot be honoured: {rule}")


GREEDY: Final = Sampling()


@dataclass(frozen=True)
class Wanted(Sampling):
    """What a server's caller may ask for beside: a writer of many replies at once honours all of it."""

    stop: tuple[str, ...] = ()
    """Texts that end the reply and are not part of it."""
    top_logprobs: int | None = None
    """How many of the likeliest tokens are told beside each written one; None tells no probabilities."""
    presence_penalty: float = 0.0
    """Taken off the logit of every token that the reply holds already."""
    frequency_penalty: float = 0.0
    """The same for each time that the reply holds it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    """Added to the logits of tokens, by id."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema that the reply must fit."""


@dataclass(frozen=True)
class Reply:
    """What the model wrote after a prompt.

    `token_ids` are all that it wrote; the token that ended its turn, where `finish` is `stop`, is the last
    of them and not part of `text`.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    prompt_tokens: int


class Completer(Protocol):
    """Anything that answers messages."""

    def reply(
        self,
        messages: Messages,
        *,
        tools: Messages = (),
        sampling: Sampling = GREEDY,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply:
        """Answer one conversation; `on_text` gets the text as it comes, in whole characters."""
        ...

    def replies(
        self, conversations: Sequence[Messages], *, sampling: Sampling = GREEDY
    ) -> list[Reply]:
        """Answer many, in their order."""
        ...
