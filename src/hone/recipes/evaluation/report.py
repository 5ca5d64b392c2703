"""An evaluation's files: `result.json`, `samples.jsonl` and `report.html`, together or not at all. It measures nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hone import __version__
from hone.data.outbox import Outbox
from hone.infer.completer import Sampling
from hone.recipes.evaluation.bootstrap import Draws
from hone.recipes.evaluation.measure import told_sampling
from hone.recipes.evaluation.page import Report, number, page
from hone.recipes.evaluation.result import FORMAT, Sample, Taken, worst

RESULT: Final = "result.json"
SAMPLES: Final = "samples.jsonl"
PAGE: Final = "report.html"
_SHOWN_MISSES: Final = 30


@dataclass(frozen=True)
class Finding:
    """What an evaluation came to. `speeds` are tokens written a second, by model."""

    out: Path
    model: str
    base: str | None
    data: tuple[str, ...]
    rows: int
    questions: int
    taken: Sequence[Taken]
    by_source: Mapping[str, Sequence[Taken]]
    samples: Sequence[Sample]
    row_losses: Mapping[str, Sequence[float]]
    left_out: Mapping[str, str]
    notices: tuple[str, ...]
    sampling: Sampling
    draws: Draws
    tasks: Mapping[str, Mapping[str, float]]
    speeds: Mapping[str, float]
    seconds: float

    @staticmethod
    def check(out: Path, *, force: bool) -> None:
        """Raise ConfigError where the files must not be written into `out`."""
        for name in (RESULT, SAMPLES, PAGE):
            Outbox(inputs=[], force=force).check(out / name)

    def misses(self, count: int) -> list[Sample]:
        """The worst answers of the tuned model."""
        return worst(self.samples, count)

    def to_json(self) -> dict[str, Any]:
        """The result file's content."""
        return {
            "format": FORMAT,
            "hone": __version__,
            "model": self.model,
            "base": self.base,
            "data": list(self.data),
            "rows": self.rows,
            "questions": self.questions,
            "measures": {one.name: one.to_json() for one in self.taken},
            "sources": {
                name: {one.name: one.to_json() for one in taken}
                for name, taken in self.by_source.items()
            },
            "tasks": {name: dict(one) for name, one in self.tasks.items()},
            "left_out": dict(self.left_out),
            "notices": list(self.notices),
            "sampling": told_sampling(self.sampling),
            "bootstrap": {
                "draws": self.draws.count,
                "seed": self.draws.seed,
                "level": self.draws.level,
            },
            "answer_tokens_per_second": dict(self.speeds),
            "seconds": round(self.seconds, 3),
        }

    def event(self) -> dict[str, Any]:
        """What is said at the end."""
        return {**self.to_json(), "out": str(self.out), "report": str(self.out / PAGE)}


def write(finding: Finding, *, force: bool) -> None:
    """Write the three files. Raises ConfigError where one stands there already, without `force`, and DiskError."""
    with Outbox(inputs=[], force=force) as outbox:
        sink = outbox.rows(finding.out / SAMPLES)
        for sample in finding.samples:
            sink.add_json(sample.to_json())
        outbox.put_json(finding.out / RESULT, finding.to_json())
        outbox.put_text(finding.out / PAGE, page(_report(finding)))


def _report(finding: Finding) -> Report:
    name = Path(finding.model).name or finding.model
    data = ", ".join(finding.data) or ", ".join(dict.fromkeys(_task_names(finding)))
    base = f"beside {finding.base}" if finding.base else "alone"
    facts = {"rows": f"{finding.rows:,}", "questions": f"{finding.questions:,}"}
    for player, speed in finding.speeds.items():
        facts[f"tokens/s, {player}"] = number(speed)
    misses = [one for one in finding.samples if one.misses > 1e-9]
    draws = finding.draws
    sampling = finding.sampling
    drawn = (
        "greedily"
        if not sampling.temperature
        else f"at temperature {sampling.temperature:g}, top-p {sampling.top_p:g}"
    )
    how = (
        f"Answers were written {drawn}, at most {sampling.max_tokens:,} tokens each. Intervals are the central "
        f"{draws.level:.0%} of {draws.count:,} paired bootstrap draws over rows (seed {draws.seed}): each draw takes as "
        "many rows as there are, with replacement, the same ones for both models (Efron & Tibshirani 1993; Koehn 2004). "
        "`better` and `worse` say that the interval of the difference excludes zero. Where all rows score alike an "
        "interval has no width: it knows nothing of rows that were not seen."
    )
    return Report(
        title=f"{name} on {data}",
        subtitle=f"{finding.model}, {base}; Hone {__version__}",
        facts=facts,
        taken=finding.taken,
        by_source=finding.by_source,
        row_losses=finding.row_losses,
        misses=finding.misses(_SHOWN_MISSES),
        missed=len(misses),
        notices=finding.notices,
        left_out=finding.left_out,
        how=how,
        tasks=finding.tasks,
    )


def _task_names(finding: Finding) -> list[str]:
    return [name.partition("/")[0] for one in finding.tasks.values() for name in one]
