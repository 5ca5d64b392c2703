"""The course of a run: its steps laid out as the loop will lay them out, and what they come to. No torch.

Every step is laid out where that is quick; of a longer run a sample, spread evenly, is, and the rest is scaled up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from hone.config.sections import Config
from hone.data.dataset import Dataset, Figures
from hone.data.steps import StepSource
from hone.engine.cost import Weight
from hone.recipes.rows import source_weights

_EACH_ROW: Final = 40  # tokens: what laying out a row costs, beside its own


@dataclass(frozen=True)
class Patience:
    """How much may be laid out."""

    tokens: int
    """Up to so many, over all epochs, every step is laid out."""
    sampled: int
    """Steps of a longer run."""


THOROUGH: Final = Patience(4_000_000, 48)
QUICK: Final = Patience(300_000, 8)


@dataclass(frozen=True)
class Course:
    """What a run goes through, evaluations apart."""

    steps: int
    steps_per_epoch: int
    rows: int
    """Rows that the steps take, each time that one is taken."""
    tokens: int
    """Of the rows as given."""
    trained_tokens: int
    computed_tokens: int
    """What is left to compute where beginnings are shared."""
    passes: int
    """Packs in all."""
    most_passes: int
    """Packs of the step that has most."""
    largest: int
    """Tokens of the largest Pack."""
    predictions: int
    """Most predicting positions of one Pack."""
    laid_out: int
    """Steps that the figures rest on."""
    is_exact: bool
    weights: tuple[Weight, ...]
    """Packs that were laid out."""
    predicting: int
    """Predicting positions in these."""

    @property
    def saved(self) -> float:
        """Share of the tokens that sharing saves, 0 to 1."""
        return 1 - self.computed_tokens / self.tokens if self.tokens else 0.0

    @property
    def trained_share(self) -> float:
        """Predicting positions a token that is computed."""
        return self.predicting / max(1, sum(pack.tokens for pack in self.weights))

    def scaled(self, seconds: Callable[[Iterable[Weight]], float]) -> float:
        """Seconds of the whole run, by what `seconds` says of the Packs that were laid out."""
        return seconds(self.weights) * self.steps / max(1, self.laid_out)


def step_source(
    config: Config,
    rows: Dataset,
    *,
    shuffle: bool,
    alone: bool,
    mixed: bool = False,
    share: bool = True,
) -> StepSource:
    """The steps of these rows, as training takes them. `alone`: rows of this model cannot share a Pack."""
    return StepSource(
        rows,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        shuffle=shuffle,
        share_prefixes=config.compute.share_prefixes and share and not alone,
        pack=config.compute.pack and not alone,
        weights=source_weights(config.data, rows.row_counts) if mixed else None,
        sources=[file.name for file in rows.files],
    )


def count_steps(config: Config, steps_per_epoch: int) -> int:
    """Optimizer steps of a run."""
    train = config.train
    return train.max_steps or max(1, math.ceil(train.epochs * steps_per_epoch - 1e-9))


def lay_out(
    source: StepSource,
    rows: Dataset,
    figures: Figures,
    *,
    steps: int,
    budget: int,
    patience: Patience = THOROUGH,
) -> Course:
    """The course of `steps` steps at a budget. Rows that are not prepared yet are, where a sampled step holds them."""
    per_epoch = source.steps_per_epoch
    epochs = steps / per_epoch
    work = epochs * (figures.tokens + _EACH_ROW * rows.num_rows)
    if (not figures.is_estimate and work <= patience.tokens) or steps <= patience.sampled:
        chosen = list(range(steps))
    else:
        chosen = np.unique(np.linspace(0, steps - 1, patience.sampled).round().astype(int)).tolist()
    weights: list[Weight] = []
    tokens = trained = computed = taken = most = predicting = predictions = 0
    for index in chosen:
        step = source.step(index, budget)
        taken += len(step.row_names)
        tokens += step.tokens
        trained += step.trained_tokens
        computed += step.computed_tokens
        most = max(most, len(step.packs))
        for pack in step.packs:
            weights.append(Weight(pack.num_tokens, pack.visible_pairs))
            predicting += pack.predict.shape[0]
            predictions = max(predictions, pack.predict.shape[0])
    laid = len(chosen)
    scale = steps / laid
    exact = laid == steps
    rows_taken = taken if exact else round(epochs * rows.num_rows)
    if (
        not exact
    ):  # more rows are counted than laid out; what sharing saves is taken from the sample
        share = computed / max(1, tokens)
        tokens, trained = round(epochs * figures.tokens), round(epochs * figures.trained_tokens)
        computed = round(tokens * share)
    return Course(
        steps=steps,
        steps_per_epoch=per_epoch,
        rows=rows_taken,
        tokens=tokens,
        trained_tokens=trained,
        computed_tokens=computed,
        passes=round(len(weights) * scale),
        most_passes=most,
        largest=max((pack.tokens for pack in weights), default=0),
        predictions=predictions,
        laid_out=laid,
        is_exact=exact,
        weights=tuple(weights),
        predicting=predicting,
    )
