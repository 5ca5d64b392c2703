"""What an evaluation came to: measures with their intervals, and every answer. It writes JSON and draws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hone.data.shape_writers import as_openai
from hone.recipes.evaluation.answer import Answer
from hone.recipes.evaluation.bootstrap import Draws, Floats, Interval, intervals
from hone.recipes.evaluation.losses import Losses
from hone.recipes.evaluation.measure import Measure, Statistics, exponential_mean, mean
from hone.recipes.evaluation.players import BASE, TUNED
from hone.recipes.evaluation.question import Question

FORMAT = 1

FEWEST = 5
"""Rows below which an interval of the bootstrap says nothing; its coverage falls short by much for so few."""


@dataclass(frozen=True)
class Taken:
    """One measure of one source, or of all: of the tuned model, of its base, and of what lies between."""

    name: str
    about: str
    better: str
    top: float | None
    rows: int
    questions: int
    tuned: Interval
    base: Interval | None
    difference: Interval | None
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `not shown` where the difference's interval holds zero; empty without a base.

        Of fewer than `FEWEST` rows nothing is shown: drawing from so few again and again hides how much they vary.
        """
        if self.difference is None or self.difference.value is None:
            return ""
        if self.rows < FEWEST:
            return "too few rows"
        if not self.difference.excludes_zero:
            return "not shown"
        up = self.difference.value > 0
        return "better" if up == (self.better == "higher") else "worse"

    def to_json(self) -> dict[str, Any]:
        """As the result file holds it."""
        told: dict[str, Any] = {
            "about": self.about,
            "better": self.better,
            "rows": self.rows,
            "questions": self.questions,
            TUNED: _interval(self.tuned),
        }
        if self.base is not None and self.difference is not None:
            told |= {BASE: _interval(self.base), "difference": _interval(self.difference)}
            told["tuned_is"] = self.verdict
        return told | ({"details": dict(self.details)} if self.details else {})


@dataclass(frozen=True)
class Sample:
    """One question and what each model answered, with the scores of each answer and the loss of its row."""

    question: Question
    answers: Mapping[str, Answer]
    scores: Mapping[str, Mapping[str, float]]
    row_loss: Mapping[str, float]
    misses: float
    """How far the tuned answer is from the best by the measures that have a best: 0 to 1, their mean."""

    def to_json(self) -> dict[str, Any]:
        """A line of the file of samples."""
        question = self.question
        reference: dict[str, Any] = {"text": question.reference.text}
        if question.reference.calls:
            reference["tool_calls"] = [
                {"name": one.name, "arguments": one.arguments} for one in question.reference.calls
            ]
        told: dict[str, Any] = {
            "row": question.row,
            "source": question.source,
            "turn": question.turn,
            "prompt": [as_openai(one) for one in question.messages],
            **({"tools": list(question.tools)} if question.tools else {}),
            "reference": reference,
        }
        for name, answer in self.answers.items():
            told[name] = {**answer.to_json(), "scores": dict(self.scores[name])}
        return told | ({"row_loss": dict(self.row_loss)} if self.row_loss else {})


def take_losses(
    tuned: Losses, base: Losses | None, source: str | None, draws: Draws, *, comparable: bool
) -> list[Taken]:
    """Loss and perplexity, of the rows of `source` or of all."""
    names = [row for row in tuned.by_row if source is None or tuned.source_of.get(row) == source]
    if not names:
        return []

    def matrix(one: Losses) -> Floats:
        return np.array([one.by_row.get(name, (0.0, 0.0)) for name in names])

    pair = None if base is None or not comparable else matrix(base)
    found: list[Taken] = []
    about = {
        "loss": "mean negative log-likelihood of an answer's tokens, weighted as in training (nats)",
        "perplexity": "exp(loss)",
    }
    for name, value in {"loss": mean, "perplexity": exponential_mean}.items():
        first, second, between = intervals(matrix(tuned), pair, value, draws)
        if base is not None and not comparable:
            second = intervals(matrix(base), None, value, draws)[0]
        found.append(
            Taken(name, about[name], "lower", None, len(names), len(names), first, second, between)
        )
    return found


def take(
    measure: Measure,
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[int, Answer]],
    source: str | None,
    draws: Draws,
) -> Taken | None:
    """A measure of the questions (of `source`, or of all) that every model answered and that have something for it; None
    where there is none.

    A question on which the measure says nothing of one of the answers counts for that model with nothing.
    """
    asked = [i for i, one in enumerate(questions) if i in answers[TUNED] and measure.asks(one)]
    asked = [i for i in asked if all(i in of_one for of_one in answers.values())]
    asked = [i for i in asked if source is None or questions[i].source == source]
    if not asked:
        return None
    rows = list(dict.fromkeys(questions[i].row for i in asked))
    places = {name: place for place, name in enumerate(rows)}

    def matrix(of_one: Mapping[int, Answer]) -> Floats:
        found = np.zeros((len(rows), measure.width))
        for i in asked:
            statistics = measure.take(questions[i], of_one[i])
            if statistics is not None:
                found[places[questions[i].row]] += statistics
        return found

    base = matrix(answers[BASE]) if BASE in answers else None
    first, second, between = intervals(matrix(answers[TUNED]), base, measure.value, draws)
    details = {} if measure.details is None else measure.details()
    return Taken(
        measure.name, measure.about, measure.better, measure.top, len(rows), len(asked),
        first, second, between, details,
    )  # fmt: skip


def samples(
    measures: Sequence[Measure],
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[int, Answer]],
    of_losses: Mapping[str, Losses],
) -> list[Sample]:
    """Every question that was put, in the order of the rows."""
    found: list[Sample] = []
    for i, question in enumerate(questions):
        given = {name: of_one[i] for name, of_one in answers.items() if i in of_one}
        if TUNED not in given:
            continue
        scores = {
            name: {
                measure.name: score
                for measure in measures
                if measure.asks(question)
                and (score := measure.score(_statistics(measure, question, one))) is not None
            }
            for name, one in given.items()
        }
        tops = {measure.name: measure.top for measure in measures if measure.top is not None}
        shares = [score / tops[name] for name, score in scores[TUNED].items() if name in tops]
        row_loss = {
            name: one.by_row[question.row][0] / one.by_row[question.row][1]
            for name, one in of_losses.items()
            if question.row in one.by_row
        }
        miss = 1 - sum(shares) / len(shares) if shares else 0.0
        found.append(Sample(question, given, scores, row_loss, miss))
    return found


def worst(found: Sequence[Sample], count: int) -> list[Sample]:
    """The samples that miss most, those of a row with a high loss first where they miss alike; none that misses nothing."""
    missed = [one for one in found if one.misses > 1e-9]
    return sorted(missed, key=lambda one: (-one.misses, -one.row_loss.get(TUNED, 0.0)))[:count]


def _statistics(measure: Measure, question: Question, answer: Answer) -> Statistics | None:
    return measure.take(question, answer)


def _interval(one: Interval) -> dict[str, float | None]:
    return {"value": one.value, "low": one.low, "high": one.high}
