"""Which measures are taken: those that were asked for, else those that the rows have something for. It takes none."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hone.errors import ConfigError, EnvironmentFault, nearest
from hone.recipes.evaluation import calls, forms, wording
from hone.recipes.evaluation.measure import LOSSES, Measure
from hone.recipes.evaluation.question import Question

JUDGE: Final = "judge"
NAMES: Final = (
    *LOSSES, "exact_match", "token_f1", "rouge_l", "bleu", "chrf", "json", "json_match", "json_schema",
    "tool_name", "tool_call", "tool_abstain", "regex", JUDGE,
)  # fmt: skip
_PACKAGES: Final = {
    "rouge_l": "rouge_score",
    "bleu": "sacrebleu",
    "chrf": "sacrebleu",
    "json_schema": "jsonschema",
}
_NEEDS: Final = {"json_schema": "--schema FILE", "regex": "--regex PATTERN", JUDGE: "--judge MODEL"}


@dataclass(frozen=True)
class Wishes:
    """What was asked for: measures by name (none: what fits the rows), and what some of them need."""

    names: tuple[str, ...] = ()
    schema: Path | None = None
    pattern: str | None = None
    judge: bool = False

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in NAMES:
                raise ConfigError(f"no measure {name!r}", remedy=nearest(name, NAMES))
        given = {"json_schema": self.schema, "regex": self.pattern, JUDGE: self.judge or None}
        for name, what in given.items():
            if name in self.names and what is None:
                raise ConfigError(
                    f"{name} cannot be taken without {_NEEDS[name]}", remedy=f"add {_NEEDS[name]}"
                )
            if self.names and name not in self.names and what is not None:
                raise ConfigError(
                    f"{_NEEDS[name].partition(' ')[0]} has no effect: {name} is not among the measures that --metric names",
                    remedy=f"add --metric {name}, or leave it out",
                )
        for name in self.names:
            require(name)
        if self.schema is not None:
            require("json_schema")
            forms.json_schema(self.schema)
        if self.pattern is not None:
            wording.regex(self.pattern)

    @property
    def wants_answers(self) -> bool:
        """Whether anything but losses is asked for."""
        return not self.names or any(name not in LOSSES for name in self.names)

    @property
    def wants_losses(self) -> bool:
        """Whether a loss is asked for."""
        return not self.names or any(name in LOSSES for name in self.names)


@dataclass
class Chosen:
    """The measures of answers, and what is left out with the reason."""

    measures: list[Measure] = field(default_factory=list[Measure])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    judges: bool = False


def require(name: str) -> None:
    """Raise EnvironmentFault where the package that a measure needs is not installed."""
    package = _PACKAGES.get(name)
    if package is not None and not _is_here(package):
        raise EnvironmentFault(
            f"the measure {name} needs {package.replace('_', '-')}, not installed here",
            remedy="pip install 'hone[evaluate]'",
        )


def choose(wishes: Wishes, questions: Sequence[Question], *, reads_calls: bool) -> Chosen:
    """The measures for these questions; `reads_calls`: whether calls can be read from what the model writes.

    Raises ConfigError for a measure that was asked for by name and has no object in the rows.
    """
    chosen = Chosen()
    texts = [one.reference.text for one in questions if one.reference.text]
    makers: dict[str, Callable[[], Measure]] = {
        "exact_match": wording.exact_match,
        "token_f1": wording.token_f1_measure,
        "rouge_l": wording.rouge_l,
        "bleu": lambda: wording.bleu(texts),
        "chrf": wording.chrf,
        "json": forms.json_measure,
        "json_match": forms.json_match,
        "tool_name": calls.tool_name,
        "tool_call": calls.tool_call,
        "tool_abstain": calls.tool_abstain,
    }
    if wishes.schema is not None:
        schema = wishes.schema
        makers["json_schema"] = lambda: forms.json_schema(schema)
    if wishes.pattern is not None:
        pattern = wishes.pattern
        makers["regex"] = lambda: wording.regex(pattern)
    for name in NAMES:
        if name in LOSSES:
            continue
        if name == JUDGE and wishes.judge:
            chosen.judges = True
            continue
        why = _why_not(name, wishes, questions, texts, makers, reads_calls=reads_calls)
        if why is None and name in makers:
            measure = makers[name]()
            if any(measure.asks(one) for one in questions):
                chosen.measures.append(measure)
                continue
            why = "no row has anything that it judges"
        if name in wishes.names:
            raise ConfigError(
                f"{name} cannot be taken: {why}", remedy="leave it out, or give other rows"
            )
        chosen.left_out[name] = why or "not asked for"
    return chosen


def _why_not(
    name: str,
    wishes: Wishes,
    questions: Sequence[Question],
    texts: Sequence[str],
    makers: dict[str, Callable[[], Measure]],
    *,
    reads_calls: bool,
) -> str | None:
    """Why a measure is left out, where that is known without it."""
    if wishes.names and name not in wishes.names:
        return "not asked for"
    if name not in makers:
        return f"it needs {_NEEDS[name]}"
    package = _PACKAGES.get(name)
    if package is not None and not _is_here(package):
        return f"{package.replace('_', '-')} is not installed: pip install 'hone[evaluate]'"
    if name.startswith("tool_"):
        if not any(one.schemas for one in questions):
            return "no row declares or calls a tool"
        if not reads_calls:
            return "the model's chat template writes no tool calls, or in a form that is not known here"
    if name == "bleu" and texts and not wording.has_four_words(texts):
        return "no reference has four words, so that BLEU is 0 whatever is answered"
    is_json_task = bool(texts) and all(forms.is_json(text) for text in texts)
    if name in ("json", "json_match") and not wishes.names and not is_json_task:
        return "the references are not all JSON"
    return None


def _is_here(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
