"""The text of a reply as its tokens come, held back where a stop text may have begun. It knows no model."""

from __future__ import annotations

from collections.abc import Sequence

from hone.data.tokenizer import TextTokenizer
from hone.infer.text_stream import TextStream
from hone.infer.writer import Chance, Piece


class ReplyText:
    """Tokens in, pieces out; the pieces joined are the text up to the first stop text, without it."""

    def __init__(
        self, tokenizer: TextTokenizer, prompt: Sequence[int], stops: Sequence[str]
    ) -> None:
        self._stream = TextStream(tokenizer, prompt)
        self._stops = [stop for stop in stops if stop]
        self._held: list[tuple[str, Chance]] = []
        self.is_stopped = False
        """Whether a stop text has come."""

    def push(self, chance: Chance) -> Piece | None:
        """The next token; None where nothing can be said yet."""
        self._held.append((self._stream.push(chance.token_id), chance))
        return self._settle(at_end=False)

    def end(self) -> Piece | None:
        """What was held back, now that no token follows."""
        if self.is_stopped:
            return None
        rest = self._stream.end()
        if rest and self._held:
            text, chance = self._held[-1]
            self._held[-1] = (text + rest, chance)
        elif rest:
            return Piece(rest, 0)
        return self._settle(at_end=True)

    def _settle(self, *, at_end: bool) -> Piece | None:
        text = "".join(piece for piece, _ in self._held)
        cuts = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if cuts:
            self.is_stopped = True
            return self._said(min(cuts), cut=True)
        safe = len(text) if at_end else len(text) - self._begun(text)
        return self._said(safe, cut=False)

    def _begun(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop text."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0

    def _said(self, until: int, *, cut: bool) -> Piece | None:
        """The tokens whose text lies before `until`; where the reply is cut there, the part of a token too."""
        said: list[Chance] = []
        texts: list[str] = []
        length = 0
        while self._held:
            text, chance = self._held[0]
            if length + len(text) > until and not (cut and length < until):
                break
            if cut and length >= until:
                break
            self._held.pop(0)
            texts.append(text[: until - length] if cut else text)
            said.append(chance)
            length += len(text)
        return Piece("".join(texts), len(said), tuple(said)) if said else None
