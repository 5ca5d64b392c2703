"""Which tokens of an Example are learned beside the replies: what follows their ends, or everything. It renders nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hone.data.example import Example
from hone.pack import Float32, Int32


@dataclass(frozen=True)
class Learned:
    """`separator`: the tokens [S] that the template writes after the end of a reply, where they are learned too;
    none where they are not. `everything`: every token is."""

    separator: Int32
    everything: bool = False

    def of(self, examples: Sequence[Example]) -> list[Example]:
        """The Examples of one row with these weights.

        Of several, what one has in common with the one before it from the beginning on is learned once.
        """
        if self.everything:
            before = [None, *examples[:-1]]
            return [_whole(one, last) for one, last in zip(examples, before, strict=True)]
        if not self.separator.size:
            return list(examples)
        return [self._with_separators(one) for one in examples]

    def _with_separators(self, example: Example) -> Example:
        weight: Float32 = example.weight.copy()
        size = self.separator.size
        for _, end in example.trained_spans():
            if np.array_equal(example.input_ids[end : end + size], self.separator):
                weight[end : end + size] = weight[end - 1]
        return Example(example.input_ids, weight, example.origin)


def _whole(example: Example, before: Example | None) -> Example:
    weight: Float32 = np.ones(example.num_tokens, dtype=np.float32)
    known = 1  # nothing comes before the first token
    if before is not None:
        size = min(example.num_tokens, before.num_tokens)
        differ = np.flatnonzero(example.input_ids[:size] != before.input_ids[:size])
        known = int(differ[0]) if differ.size else size
    weight[: max(known, 1)] = 0
    return Example(example.input_ids, weight, example.origin)
