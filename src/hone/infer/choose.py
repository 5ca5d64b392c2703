"""The next token of each row from its logits: penalties, forms, temperature, and a draw of the row's own.

It knows no text. Legend: n rows, V vocabulary.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from hone.infer.completer import Wanted
from hone.infer.grammar import Guide
from hone.infer.writer import Chance


@dataclass(eq=False)
class Chooser:
    """What decides about one reply's tokens beside the model."""

    wanted: Wanted
    guide: Guide | None
    width: int
    """How many logits are the model's own; others belong to tokens of another model on the same weights."""
    written: Counter[int] = field(default_factory=Counter[int])

    def __post_init__(self) -> None:
        self.random = random.Random(self.wanted.seed)

    @property
    def changes_logits(self) -> bool:
        """Whether anything but the temperature comes between logits and choice."""
        asked = self.wanted
        penalised = asked.presence_penalty != 0 or asked.frequency_penalty != 0
        return bool(asked.logit_bias) or penalised or self.guide is not None

    def take(self, token_id: int) -> None:
        """Remember a written token."""
        self.written[token_id] += 1
        if self.guide is not None:
            self.guide.take(token_id)


@torch.inference_mode()
def choose(logits: Tensor, rows: Sequence[Chooser]) -> list[Chance]:
    """A token for each row of `logits` [n, V], float32, which is changed in place.

    Greedy rows take the likeliest; the others draw by a number of their own generator, so that a seed gives the
    same reply whoever else is in the batch. Probabilities that are told are the model's own, before all of this.
    """
    for i, row in enumerate(rows):
        if row.width < logits.shape[1]:
            logits[i, row.width :] = -torch.inf
    told = [i for i, row in enumerate(rows) if row.wanted.top_logprobs is not None]
    chances = torch.log_softmax(logits[told], dim=-1) if told else None
    for i, row in enumerate(rows):
        if row.changes_logits:
            _change(logits[i], row)
    ids = logits.argmax(dim=-1)
    for i, row in enumerate(rows):
        if row.wanted.temperature > 0:
            ids[i] = _drawn(logits[i], row)
    chosen = cast("list[int]", ids.tolist())
    found = [Chance(token, 0.0) for token in chosen]
    if chances is not None:
        for place, i in enumerate(told):
            found[i] = _told(chances[place], chosen[i], rows[i].wanted.top_logprobs or 0)
    return found


def _change(logits: Tensor, row: Chooser) -> None:
    """Lay penalties, biases and the grammar over the logits [V] of one row."""
    asked = row.wanted
    if row.written and (asked.presence_penalty or asked.frequency_penalty):
        ids = torch.tensor(list(row.written), device=logits.device)
        counts = torch.tensor(list(row.written.values()), device=logits.device, dtype=logits.dtype)
        logits[ids] -= asked.presence_penalty + asked.frequency_penalty * counts
    for token, bias in asked.logit_bias.items():
        logits[token] += bias
    if row.guide is not None:
        allowed = torch.from_numpy(row.guide.allowed(logits.shape[0])).to(logits.device)
        logits.masked_fill_(~allowed, -torch.inf)


def _drawn(logits: Tensor, row: Chooser) -> Tensor:
    """One id, drawn from the logits [V] by the row's next random number."""
    chances = torch.softmax(logits / row.wanted.temperature, dim=-1)
    number = row.random.random()
    if row.wanted.top_p < 1:
        ordered, ids = chances.sort(descending=True)
        # A token stays where those before it have less than top_p together: the first one always.
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(before >= row.wanted.top_p, 0.0)
        return ids[_place(ordered, number)]
    return _place(chances, number)


def _place(chances: Tensor, number: float) -> Tensor:
    """Where a number from 0 to 1 falls among the chances [V], which need not sum to 1."""
    sums = chances.double().cumsum(dim=-1)
    place = torch.searchsorted(sums, sums[-1:] * number, right=True)
    last = int(chances.nonzero()[-1]) if int(place) >= len(chances) else len(chances) - 1
    return place.clamp(max=last)[0]


def _told(chances: Tensor, token: int, top: int) -> Chance:
    likeliest: list[tuple[int, float]] = []
    if top:
        values, ids = chances.topk(min(top, chances.shape[0]))
        places, found = cast("list[int]", ids.tolist()), cast("list[float]", values.tolist())
        likeliest = list(zip(places, found, strict=True))
    return Chance(token, float(chances[token]), tuple(likeliest))
