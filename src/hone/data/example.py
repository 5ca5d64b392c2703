"""The Example: token ids with the weight of predicting each. It knows no text and no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hone.pack import Float32, Int32


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from: the file as the user named it, and its 1-based line."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One sequence for the model.

    `weight[t]` is the loss weight of predicting token t from the tokens before it; 0 is context, and
    `weight[0]` is always 0, because nothing comes before it.
    """

    input_ids: Int32  # [T]
    weight: Float32  # [T]
    origin: Origin

    @property
    def num_tokens(self) -> int:
        """Tokens, trained and context."""
        return int(self.input_ids.shape[0])

    @property
    def num_trained_tokens(self) -> int:
        """Tokens with a weight above 0."""
        return int(np.count_nonzero(self.weight))

    def cut(self, length: int) -> Example:
        """Its first `length` tokens."""
        return Example(self.input_ids[:length], self.weight[:length], self.origin)

    def trained_spans(self) -> list[tuple[int, int]]:
        """Unbroken runs [start, stop) of trained tokens, in order."""
        trained = np.concatenate(([False], self.weight > 0, [False]))
        edges = np.flatnonzero(trained[1:] != trained[:-1])
        return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
