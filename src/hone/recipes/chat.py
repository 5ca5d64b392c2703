"""`chat`: a conversation with a run or a model, and with its base beside it. It prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from hone.infer.completer import GREEDY, Completer, Reply, Sampling
from hone.infer.place import find_place

BASE: Final = "base"
TUNED: Final = "tuned"

OnText = Callable[[str, str], None]  # who speaks, and what comes next of it


class Chat:
    """Turns of one conversation. Each partner remembers its own replies, not the other's."""

    def __init__(
        self,
        partners: Mapping[str, Completer],
        *,
        system: str | None = None,
        sampling: Sampling = GREEDY,
    ) -> None:
        self.partners = dict(partners)
        self.sampling = sampling
        self._system = system
        self._told: dict[str, list[dict[str, str]]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system message."""
        first = [] if self._system is None else [{"role": "system", "content": self._system}]
        self._told = {name: list(first) for name in self.partners}

    def ask(self, text: str, *, on_text: OnText | None = None) -> dict[str, Reply]:
        """Every partner's reply, by its name, in turn.

        A turn that fails or is stopped (Ctrl-C) is forgotten by all of them.
        """
        asked = {"role": "user", "content": text}
        replies: dict[str, Reply] = {}
        for name, partner in self.partners.items():
            replies[name] = partner.reply(
                [*self._told[name], asked],
                sampling=self.sampling,
                on_text=None if on_text is None else _said_by(name, on_text),
            )
        for name, reply in replies.items():
            self._told[name] += [asked, {"role": "assistant", "content": reply.text}]
        return replies


def open_chat(
    name: str,
    *,
    compare: bool = False,
    system: str | None = None,
    sampling: Sampling = GREEDY,
    revision: str | None = None,
) -> tuple[Chat, tuple[str, ...]]:
    """A conversation with what `name` stands for, and what a user should hear first.

    With `compare` the base answers first, then the tuned model. Raises ModelError, EnvironmentFault and
    ConfigError, most of them before torch is loaded.
    """
    place = find_place(name, revision=revision)
    from hone.infer.open import open_place

    opened = open_place(place, with_base=compare)
    partners: dict[str, Completer] = {} if opened.base is None else {BASE: opened.base}
    partners[TUNED] = opened.completer
    return Chat(partners, system=system, sampling=sampling), opened.notices


def _said_by(name: str, on_text: OnText) -> Callable[[str], None]:
    return lambda piece: on_text(name, piece)
