"""Turns in text to Examples in tokens, so that before every trained turn stand the tokens of inference.
It knows no messages and no template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hone.data.example import Example, Origin
from hone.data.pieces import Cut, Part, Piece, Pieces
from hone.data.tokenizer import TextTokenizer
from hone.data.turns import Turn
from hone.pack import Float32, Int32, Int64


@dataclass(slots=True)
class Group:
    """Turns that become one Example, in order.

    `before` splits the prompt of the last of them, as inference would see it; `after` what follows.
    """

    turns: list[Turn]
    text: str
    before: list[Part]
    after: list[Part]


class Assembler:
    """Groups the turns of one row and encodes each group. `mark`: the row's guard, or ''."""

    def __init__(
        self,
        pieces: Pieces,
        tokenizer: TextTokenizer,
        *,
        mark: str,
        is_seam: Callable[[Piece, int], bool] | None = None,
    ) -> None:
        """`is_seam(piece, at)`: whether a turn may begin there; by default, where its tokens allow it."""
        self._pieces = pieces
        self._tokenizer = tokenizer
        self._mark = mark
        self._is_seam = is_seam or self._leaves_tokens

    def group(self, turn: Turn, whole: str) -> Group:
        """A group of one. What the `whole` conversation says after the turn stays as context if it fits."""
        text = turn.text
        if turn.closes and whole.startswith(text[: turn.stop]):
            text = whole
        before = self._pieces.split(text[: turn.start])
        follows_token = not before or isinstance(before[-1], Cut)
        goes_on = not follows_token or not self._tokenizer.prefixes_every_piece
        after = self._pieces.split(text[turn.start :], after=turn.start > 0 and goes_on)
        return Group([turn], text, before, after)

    def groups(self, turns: Sequence[Turn], whole: str, last: Group) -> list[Group]:
        """Each turn joins a later one whose text begins with all of its own, where its tokens stay those
        of inference; otherwise it stands alone. `last` is the group of the last turn."""
        groups = [last]
        for turn in reversed(turns[:-1]):
            home = next((group for group in groups if self._joins(turn, group)), None)
            if home is None:
                groups.append(self.group(turn, whole))
            else:
                home.turns.insert(0, turn)
        return groups[::-1]

    def wanted(self, group: Group, turns: Sequence[Turn]) -> Iterable[tuple[str, bool, str]]:
        """The pieces that will be asked for when `turns` join the group."""
        for part in (*group.before, *group.after):
            if isinstance(part, Piece):
                yield part.text, part.continues, self._mark
        places = [turn.start for turn in turns]
        for part in group.before:
            while places and places[0] < part.stop:
                at = places.pop(0) - part.start
                if at > 0 and isinstance(part, Piece):
                    yield part.text[:at], part.continues, self._mark
                    yield part.text[at:], True, self._mark

    def example(self, group: Group, origin: Origin) -> Example:
        """The Example of a group."""
        before = self._pieces.ids_of(group.before, self._mark)
        after = self._pieces.ids_of(group.after, self._mark)
        starts: Int64 = np.cumsum([0, *map(len, before)])
        last, first = group.turns[-1], int(starts[-1])
        trained = _through(group.after, after, last.stop - last.start) if last.closes else after
        ends = first + sum(map(len, trained))
        eos = self._tokenizer.eos_id
        closing = [] if last.closes or eos is None else [np.array([eos], dtype=np.int32)]
        parts: list[Int32] = [np.zeros(0, np.int32), *before, *after, *closing]
        ids: Int32 = np.concatenate(parts)
        weight: Float32 = np.zeros(len(ids), dtype=np.float32)
        for turn in group.turns[:-1]:
            begin, end = self._token_at(group, starts, turn.start), _stop(group, starts, turn)
            weight[begin:end] = turn.weight
        weight[first : ends + len(closing)] = last.weight
        weight[:1] = 0  # nothing comes before the first token
        return Example(ids, weight, origin)

    def _joins(self, turn: Turn, group: Group) -> bool:
        if not turn.closes or not group.text.startswith(turn.text[: turn.stop]):
            return False
        if not any(isinstance(part, Cut) and part.end == turn.stop for part in group.before):
            return False
        for part in group.before:
            if part.start < turn.start < part.stop:
                return isinstance(part, Piece) and self._is_seam(part, turn.start - part.start)
        return True

    def _leaves_tokens(self, piece: Piece, at: int) -> bool:
        """Whether cutting a piece at this character leaves its tokens as they are."""
        head = self._pieces.ids(piece.text[:at], continues=piece.continues, mark=self._mark)
        tail = self._pieces.ids(piece.text[at:], continues=True, mark=self._mark)
        both = self._pieces.ids(piece.text, continues=piece.continues, mark=self._mark)
        return np.array_equal(np.concatenate((head, tail)), both)

    def _token_at(self, group: Group, starts: Int64, place: int) -> int:
        """Index of the token that begins at the character `place`, which is a seam."""
        for part, start in zip(group.before, starts, strict=False):
            if place <= part.start:
                return int(start)
            if place < part.stop and isinstance(part, Piece):
                text = part.text[: place - part.start]
                head = self._pieces.ids(text, continues=part.continues, mark=self._mark)
                return int(start) + len(head)
        return int(starts[-1])


def _stop(group: Group, starts: Int64, turn: Turn) -> int:
    """Index after the token that ends the turn."""
    return next(
        int(starts[i + 1])
        for i, part in enumerate(group.before)
        if isinstance(part, Cut) and part.end == turn.stop
    )


def _through(parts: Sequence[Part], ids: list[Int32], end: int) -> list[Int32]:
    """The ids up to the token whose letters end at `end`, that token included."""
    for i, part in enumerate(parts):
        if isinstance(part, Cut) and part.end == end:
            return ids[: i + 1]
    return ids
