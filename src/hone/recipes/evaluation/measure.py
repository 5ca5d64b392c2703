"""A measure of answers: what it takes of a question, how sums of that become a number, and which way is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from hone.infer.completer import Sampling
from hone.recipes.evaluation.answer import Answer
from hone.recipes.evaluation.bootstrap import Floats, Value
from hone.recipes.evaluation.question import Question

Statistics = Sequence[float]
Take = Callable[[Question, Answer], Statistics | None]

LOSSES: Final = ("loss", "perplexity")


def mean(sums: Floats) -> float:
    """Of sums [2] of scores and of how many there are; NaN without any."""
    return float(sums[0] / sums[1]) if sums[1] > 0 else float("nan")


def exponential_mean(sums: Floats) -> float:
    """exp(mean): the perplexity of a mean negative log-likelihood; infinite where that is beyond a float."""
    with np.errstate(over="ignore"):
        return float(np.exp(mean(sums)))


@dataclass(frozen=True)
class Measure:
    """One measure.

    `asks` says whether a question has what it judges; `take` gives its statistics of an answer, always of `width`
    numbers, or None where nothing can be said; `value` makes the measure of their sums. `top` is the best value, where
    there is one: a score of 0 to `top`.
    """

    name: str
    about: str
    asks: Callable[[Question], bool]
    take: Take
    width: int = 2
    value: Value = mean
    better: Literal["higher", "lower"] = "higher"
    top: float | None = 1.0
    by_answer: bool = True
    """Whether it says something of one answer alone."""
    details: Callable[[], dict[str, Any]] | None = None
    """What a reader of the result should know beside the numbers."""

    def score(self, statistics: Statistics | None) -> float | None:
        """The measure of one answer alone, where it says something of one."""
        if statistics is None or not self.by_answer:
            return None
        found = self.value(np.asarray(statistics, dtype=np.float64))
        return found if np.isfinite(found) else None


def scored(judge: Callable[[Question, Answer], float | bool]) -> Take:
    """Statistics of a measure that is the mean of such scores."""
    return lambda question, answer: (float(judge(question, answer)), 1.0)


def told_sampling(sampling: Sampling) -> dict[str, Any]:
    """As result files hold it."""
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
    }
