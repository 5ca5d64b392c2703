"""One call of training, what it came to, and its gradient steps: batches in their order, but for those with nothing to train."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hone.config.sections import ComputeSection
from hone.data.dataset import Dataset
from hone.data.steps import StepSource
from hone.pack import Step
from hone.runs.disk import sha256_of


@dataclass(frozen=True)
class Call:
    """One call of training."""

    rows: Path
    """JSONL, a trajectory a line."""
    batch_size: int
    rates: tuple[float, ...]
    """A learning rate for each batch, or one for all."""
    train_on: str
    """`all` assistant turns, or the `last`."""
    name: str = ""
    """Kept with the checkpoint that comes of it, so that whoever asked can find it again."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all of it."""
        told = [sha256_of(self.rows), self.batch_size, [r.hex() for r in self.rates], self.train_on]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(frozen=True)
class Called:
    """What a call came to. `step` is the newest checkpoint's number; nothing was trained where `steps` is 0."""

    step: int
    steps: int
    gradient_steps: int
    """Of the model's life."""
    loss: float | None
    dropped: int


@dataclass(frozen=True)
class CallSteps:
    """Steps numbered from `first` on; `counts` are the rows given and dropped of each."""

    source: StepSource
    first: int
    batches: tuple[int, ...]
    counts: tuple[tuple[int, int], ...]

    @classmethod
    def of(
        cls, rows: Dataset, compute: ComputeSection, *, batch_size: int, first: int, alone: bool
    ) -> CallSteps:
        """Batches are taken as the rows stand. A row that was dropped leaves its batch shorter."""
        source = StepSource(
            rows,
            batch_size=batch_size,
            seed=0,
            shuffle=False,
            share_prefixes=compute.share_prefixes and not alone,
            pack=compute.pack and not alone,
        )
        batches: list[int] = []
        counts: list[tuple[int, int]] = []
        for number in range(source.steps_per_epoch):
            places = range(number * batch_size, min((number + 1) * batch_size, rows.num_rows))
            dropped = sum(not rows.examples(row) for row in places)
            if dropped < len(places):
                batches.append(number)
                counts.append((len(places), dropped))
        return cls(source, first, tuple(batches), tuple(counts))

    def __len__(self) -> int:
        return len(self.batches)

    def step(self, index: int, micro_batch_tokens: int) -> Step:
        """The 0-based step `index`, counted over the model's life."""
        step = self.source.step(self.batches[index - self.first], micro_batch_tokens)
        return dataclasses.replace(step, index=index)
