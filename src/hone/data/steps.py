"""The steps of a run: order, then layout, as one pure function of (step, token budget)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hone.data.example import Example
from hone.data.layout import Branch, branch, lay_out
from hone.data.mix import mixed_order, rows_of_mixed_step, source_of
from hone.data.order import steps_per_epoch
from hone.pack import Int64, Step


class Rows(Protocol):
    """What steps need of prepared rows; `hone.data.dataset.Dataset` is one."""

    @property
    def num_rows(self) -> int:
        """Rows, the unit of a batch."""
        ...

    @property
    def row_counts(self) -> tuple[int, ...]:
        """Rows from each source, which stand one source after the other."""
        ...

    def ensure(self, rows: Int64) -> None:
        """Return when these rows are prepared."""
        ...

    def examples(self, row: int) -> list[Example]:
        """The Examples of a row, which share its step."""
        ...

    def row_name(self, row: int) -> str:
        """Where the row came from, as `file:line`."""
        ...


class StepSource:
    """Which rows step k holds and how they are laid out. It keeps no state between calls."""

    def __init__(
        self,
        rows: Rows,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        share_prefixes: bool,
        pack: bool,
        weights: tuple[float, ...] | None = None,
        sources: Sequence[str] = (),
    ) -> None:
        """`weights`: the proportions in which several sources are mixed; None takes every row once. `sources`: what
        each is called, for losses by source; sources of one name are one. Empty: steps do not tell them."""
        self._weights = weights
        names = tuple(dict.fromkeys(sources))
        self._sources = names if len(names) > 1 else ()
        self._source_places = np.asarray([names.index(one) for one in sources], dtype=np.int64)
        self._row_counts = rows.row_counts if self._sources else ()
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._share_prefixes = share_prefixes
        self._pack = pack

    @property
    def num_rows(self) -> int:
        """Rows in one pass."""
        return self._rows.num_rows

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass."""
        return steps_per_epoch(self._rows.num_rows, self._batch_size)

    def step(self, index: int, micro_batch_tokens: int) -> Step:
        """The 0-based step `index`, in Packs of at most `micro_batch_tokens` tokens."""
        rows = rows_of_mixed_step(
            index,
            row_counts=self._rows.row_counts,
            weights=self._weights,
            batch_size=self._batch_size,
            seed=self._seed,
            shuffle=self._shuffle,
        )
        self._rows.ensure(rows)
        return self._lay_out(index, [int(row) for row in rows], micro_batch_tokens)

    def order_from(self, index: int) -> Int64:
        """The rows that step `index` and those after it take in their epoch, in order."""
        epoch, within = divmod(index, self.steps_per_epoch)
        order = mixed_order(self._rows.row_counts, self._weights, self._seed, epoch, self._shuffle)
        return order[within * self._batch_size :]

    def _sources_of(self, rows: Sequence[int]) -> tuple[int, ...]:
        """The place of each row's source among the names; empty where there is but one."""
        if not self._sources:
            return ()
        source, _ = source_of(np.asarray(rows, dtype=np.int64), self._row_counts)
        return tuple(int(place) for place in self._source_places[source])

    def _lay_out(self, index: int, rows: Sequence[int], budget: int) -> Step:
        branches: list[Branch] = []
        tokens = 0
        for place, row in enumerate(rows):
            for example in self._rows.examples(row):
                tokens += int(example.input_ids.shape[0])
                cut = branch(place, example.input_ids, example.weight)
                if cut is not None:
                    branches.append(cut)
        packs = lay_out(
            branches, budget=budget, share_prefixes=self._share_prefixes, pack=self._pack
        )
        return Step(
            index=index,
            packs=packs,
            row_names=tuple(self._rows.row_name(row) for row in rows),
            sources=self._sources,
            row_sources=self._sources_of(rows),
            tokens=tokens,
            trained_tokens=sum(item.target.shape[0] for item in branches),
            weight=float(sum(np.sum(item.weight, dtype=np.float64) for item in branches)),
        )
