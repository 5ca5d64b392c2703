"""Who writes many replies at once: token ids in, pieces of text out as they come. It knows no torch and no HTTP.

This is the extension point behind `hone serve`: the batch over a model of transformers (`hone.infer.shelf`) is one
writer, a vLLM beside us another (`hone.serving.vllm`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from hone.data.render import Renderer
from hone.errors import HoneError
from hone.infer.completer import Wanted
from hone.infer.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Chance:
    """A token that was written, and how likely the model found it: natural logarithms, before any setting."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens at its place, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What comes next of a reply, in whole characters; `tokens` is how many were written for it."""

    text: str
    tokens: int
    chances: tuple[Chance, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a reply: `stop` where it ended by itself or at a stop text, `length` where it was cut."""

    finish: Literal["stop", "length"]
    tokens: int
    """All that were written, the token that ended the turn included."""
    failure: HoneError | None = None
    """Why it was not finished, where it was not."""


Told = Piece | Ended
Tell = Callable[[Told], None]
"""Called from another thread, quickly; `Ended` comes last, and once."""


@dataclass(frozen=True)
class Voice:
    """One of the models that are served: how it is asked, and how its text is read."""

    name: str
    renderer: Renderer
    stop_ids: tuple[int, ...]
    limit: int | None
    """Most tokens of prompt and reply together."""
    dialect: Dialect
    source: str
    """Where its weights lie."""
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)
    """Hold it while using the renderer or its tokenizer: they are not for several threads at once."""


class Ticket(Protocol):
    """A reply under way."""

    def cancel(self) -> None:
        """Nobody waits for it any more: its place is free at the next step, and nothing more is told."""
        ...


class Crowded(HoneError):
    """As many wait already as may."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(
            f"{waiting} requests are waiting already",
            remedy="ask again later, or raise --max-queue",
        )
        self.retry_after_s = retry_after_s


class UnknownModel(HoneError):
    """No model of that name is served."""


class Writer(Protocol):
    """Writes replies of one or more models, many at once."""

    def names(self) -> list[str]:
        """Every name that can be asked for now, checkpoints included."""
        ...

    def voice(self, name: str) -> Voice:
        """The model of that name, opened if it was not yet. Slow; raises UnknownModel, and HoneError otherwise."""
        ...

    def write(self, voice: Voice, prompt: Sequence[int], wanted: Wanted, tell: Tell) -> Ticket:
        """Begin a reply after `prompt`. Raises Crowded, and ConfigError for what cannot be honoured."""
        ...

    def close(self) -> None:
        """End every reply, and free what is held."""
        ...
