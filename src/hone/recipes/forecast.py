"""The plan of a run as its own training tells it: said at the beginning, held against what rehearsal and steps measure.

No torch: what is measured comes as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from hone.config.sections import Config
from hone.data.steps import StepSource
from hone.engine import machine
from hone.engine.cost import Speeds
from hone.errors import ModelError
from hone.recipes.advice import advise
from hone.recipes.course import QUICK, lay_out
from hone.recipes.plan import RunPlan, course_seconds, plan_run
from hone.recipes.source import Source
from hone.recipes.speeds import Measured, now, occasion, recall, remember
from hone.recipes.subject import Precision
from hone.recipes.target import find_target
from hone.runs.events import Say

_LEAST_STEPS = 3  # a pace of fewer steps says little


class Forecast:
    """What one run will take, made before the model is loaded; `local_ranks` of this machine hold as much."""

    def __init__(
        self,
        config: Config,
        source: Source,
        precision: Precision,
        *,
        local_ranks: int = 1,
    ) -> None:
        self._source = source
        self._base_bytes = machine.resident_bytes()
        self._expected: float | None = None
        self._measured: Measured | None = None
        target = find_target(config, started=local_ranks)
        self._why_not = ""
        self.plan: RunPlan | None = None
        try:
            self.plan = plan_run(
                config,
                source,
                target,
                base_bytes=self._base_bytes,
                precision=precision,
                patience=QUICK,
            )
        except ModelError as error:  # a model whose sizes cannot be read may train all the same
            self._why_not = error.what

    def tell(self, say: Say) -> None:
        """Say the plan, and what speaks against beginning."""
        if self.plan is None:
            say(
                "notice",
                code="no-plan",
                message=f"memory and time are not planned: {self._why_not}",
            )
            return
        say("plan", **self.plan.summary())
        for code, message in _doubts(self.plan):
            say("notice", code=code, message=message)

    def seconds(
        self, steps_of: StepSource, speeds: Speeds, budget: int, *, trained_share: float
    ) -> float | None:
        """Seconds of the run by a rehearsal of this moment, which is kept for later plans; None where it measured
        no speed."""
        plan = self.plan
        if plan is None or not speeds.token:
            return None
        before = recall(_occasion(plan))
        pace = 1.0 if before is None else before.pace
        self._measured = Measured(
            plan.precision, budget, speeds, trained_share, self._base_bytes, now(), pace
        )
        remember(_occasion(plan), self._measured)
        if budget != plan.budget:
            rows = self._source.prepared.train
            course = lay_out(
                steps_of, rows, plan.figures, steps=plan.course.steps, budget=budget, patience=QUICK
            )
            plan = replace(plan, course=course, budget=budget)
        steps_only = replace(plan, held_out=None)
        self._expected = course_seconds(steps_only, speeds, trained_share)
        return course_seconds(plan, speeds, trained_share) * pace

    def say_time(self, steps_of: StepSource, measured: Mapping[str, Any], say: Say) -> None:
        """Say `forecast`: seconds of the run, by what a rehearsal of this moment `measured`. Only for one rank: how
        long several wait for each other is not measured."""
        if self.plan is None or self.plan.target.count > 1:
            return
        figures = self.plan.figures
        seconds = self.seconds(
            steps_of,
            Speeds.from_json(measured["speeds"]),
            int(measured["budgets"][0][1]),
            trained_share=figures.trained_tokens / max(1, figures.tokens),
        )
        if seconds is not None:
            say("forecast", seconds=seconds)

    def compare(self, seconds: float, *, steps: int) -> None:
        """Keep how many times as long `steps` steps took as the rehearsal of this process had foretold."""
        if self.plan is None or self._measured is None or not self._expected:
            return
        expected = self._expected * steps / self.plan.course.steps
        if steps >= _LEAST_STEPS and expected > 0:
            remember(_occasion(self.plan), replace(self._measured, pace=seconds / expected))


def _doubts(plan: RunPlan) -> Iterator[tuple[str, str]]:
    """Code and sentence for what speaks against beginning."""
    gib = 2**30
    if not plan.memory.fits:
        changes = [one.words for one in advise(plan) if one.fits]
        remedy = f"; to make it fit, add {changes[0]}" if changes else ""
        message = (
            f"the plan asks for {plan.memory.peak_bytes / gib:.1f} GiB of memory, "
            f"{plan.memory.free_bytes / gib:.1f} GiB are free{remedy}"
        )
        yield "plan-memory", message
    if not plan.disk.fits:
        message = (
            f"checkpoints and result take {plan.disk.num_bytes / gib:.1f} GiB, "
            f"{plan.disk.free_bytes / gib:.1f} GiB are free in {plan.disk.folder}"
        )
        yield "plan-disk", message


def _occasion(plan: RunPlan) -> dict[str, object]:
    said = plan.config.compute.threads
    threads = said if isinstance(said, int) else machine.default_threads()
    return occasion(plan.config, plan.shape, threads=threads, precision=plan.precision)
