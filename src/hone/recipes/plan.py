"""`plan`: what a run will take, before it is begun: memory, steps, tokens, time, disk. No torch, and nothing is loaded.

The data road is read as training reads it; of the model only config.json and the headers of its weights.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hone.config.sections import Config
from hone.data.dataset import Figures
from hone.data.steps import StepSource
from hone.engine import machine
from hone.engine.cost import BUDGETS, Speeds, Weight, cheapest, worth_trying
from hone.engine.demand import Subject
from hone.models import facts
from hone.models.kept import layout_of
from hone.models.shape import Shape, read_shape
from hone.models.source import read_config
from hone.recipes.course import (
    THOROUGH,
    Course,
    Patience,
    count_steps,
    lay_out,
    step_source,
)
from hone.recipes.holding import refuse_in_parts, refuse_settings_in_parts
from hone.recipes.memory_plan import LIBRARIES_BYTES, Load, MemoryPlan, plan_memory
from hone.recipes.source import Source, read_source
from hone.recipes.speeds import Measured, occasion, recall
from hone.recipes.subject import Precision, recomputed_layers, subject
from hone.recipes.target import Target, find_target, settled
from hone.runs.events import Say

SAMPLED_STEPS: Final = 3
"""Steps whose layout is tried when choosing a budget."""
_ROW_BYTES: Final = (
    5  # of a prepared row, for each of its tokens: the token, and its share of the rest
)
_CHECKPOINTS_BESIDE: Final = 2  # the one that is being written, and the best one


@dataclass(frozen=True)
class TimePlan:
    """Seconds of a run; None: unknown until the rehearsal."""

    seconds: float | None
    says: str
    at_least: float | None
    """No card of this kind does it faster; None for a CPU."""


@dataclass(frozen=True)
class DiskPlan:
    """Bytes that a run writes at its fullest, and those that are free there."""

    checkpoint_bytes: int
    """Of one."""
    checkpoints: int
    """Most that stand there at a time."""
    artifact_bytes: int
    free_bytes: int
    folder: str

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self.checkpoint_bytes * self.checkpoints + self.artifact_bytes

    @property
    def fits(self) -> bool:
        """Whether there is room."""
        return self.num_bytes <= self.free_bytes


@dataclass(frozen=True)
class RunPlan:
    """Everything that is known of a run before it is begun."""

    config: Config
    target: Target
    shape: Shape
    subject: Subject
    precision: Precision
    precision_says: str
    budget: int
    budget_says: str
    figures: Figures
    course: Course
    load: Load
    memory: MemoryPlan
    time: TimePlan
    disk: DiskPlan
    alone_because: str | None
    held_out: Figures | None
    adapter: Path | None = None
    """The folder of one that is trained further."""

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return self.memory.fits and self.disk.fits

    @property
    def is_exact(self) -> bool:
        """Whether steps and tokens are those of the run itself."""
        return self.course.is_exact and not self.figures.is_estimate

    def summary(self) -> dict[str, Any]:
        """The plan in short: the fields of the event `plan`."""
        return {
            "fits": self.fits,
            "steps": self.course.steps,
            "tokens": self.course.tokens,
            "trained_tokens": self.course.trained_tokens,
            "computed_tokens": self.course.computed_tokens,
            "exact": self.is_exact,
            "parameters": self.shape.parameters + self.subject.beside,
            "trained_parameters": self.subject.trained_numbers,
            "precision": self.precision,
            "micro_batch_tokens": self.budget,
            "peak_bytes": self.memory.peak_bytes,
            "free_bytes": self.memory.free_bytes,
            "disk_bytes": self.disk.num_bytes,
            "disk_free_bytes": self.disk.free_bytes,
            "seconds": self.time.seconds,
            "target": str(self.target),
            "ranks": self.target.count,
            "strategy": self.target.sharding or "alone",
        }

    def to_json(self) -> dict[str, Any]:
        """All of it, for a script."""
        course, held = self.course, self.held_out
        return {
            **self.summary(),
            "model": {
                "family": self.shape.family,
                "family_known": family_says(self) is None,
                "parameters": self.shape.parameters,
                "by_part": self.shape.by_part(),
                "layers": self.shape.layers,
            },
            "tuning": {
                "method": self.config.tuning.method,
                "trained_parameters": self.subject.trained_numbers,
                "precision": self.precision,
                "precision_because": self.precision_says,
                "optimizer": self.subject.optimizer,
            },
            "memory": self.memory.to_json(),
            "rows": {
                "rows": self.figures.rows,
                "prepared": self.figures.ready,
                "longest": self.figures.longest,
                "taken": course.rows,
                "held_out": 0 if held is None else held.rows,
                "alone_because": self.alone_because,
            },
            "course": {
                "steps": course.steps,
                "steps_per_epoch": course.steps_per_epoch,
                "tokens": course.tokens,
                "trained_tokens": course.trained_tokens,
                "computed_tokens": course.computed_tokens,
                "saved_share": course.saved,
                "passes": course.passes,
                "laid_out_steps": course.laid_out,
                "exact": self.is_exact,
                "micro_batch_tokens": self.budget,
                "micro_batch_tokens_because": self.budget_says,
            },
            "time": {
                "seconds": self.time.seconds,
                "because": self.time.says,
                "at_least_seconds": self.time.at_least,
            },
            "disk": {
                "checkpoint_bytes": self.disk.checkpoint_bytes,
                "checkpoints": self.disk.checkpoints,
                "artifact_bytes": self.disk.artifact_bytes,
                "bytes": self.disk.num_bytes,
                "free_bytes": self.disk.free_bytes,
                "fits": self.disk.fits,
            },
        }


def make_plan(config: Config, say: Say, *, gpu: str | None = None) -> RunPlan:
    """Read rows and model, and plan a run of `config`: on the cards that `gpu` names, else on this machine.

    Raises ConfigError, DataError, ModelError, EnvironmentFault and DiskError, as training would before it loads
    anything.
    """
    target = find_target(config, gpu=gpu)
    before = machine.resident_bytes()
    source = read_source(config, say)
    with contextlib.closing(source.prepared):
        rows_bytes = max(0, machine.resident_bytes() - before)
        plan = plan_run(config, source, target, rows_bytes=rows_bytes)
    refuse = refuse_in_parts if target.is_here else refuse_settings_in_parts
    refuse(config, plan.target.sharding)
    return plan


def plan_run(
    config: Config,
    source: Source,
    target: Target,
    *,
    rows_bytes: int = 0,
    base_bytes: int | None = None,
    precision: Precision | None = None,
    patience: Patience = THOROUGH,
) -> RunPlan:
    """Plan a run whose rows are read.

    `base_bytes` is what its process holds before the model is loaded; None: what a rehearsal measured, else what
    libraries take and the `rows_bytes` that rows and tokenizer took here. `precision` is what `auto` came to, where
    that is known.
    """
    raw = read_config(source.base)
    shape = read_shape(source.base, raw)
    figures = source.prepared.train.figures()
    alone = facts.why_rows_run_alone(raw, longest=figures.longest)
    chosen, precision_says, measured = _precision(config, shape, target, precision)
    on_card = target.kind == "cuda"
    who = subject(config, shape, chosen, adapter=source.adapter, on_card=on_card)
    if base_bytes is None:
        base_bytes = LIBRARIES_BYTES + rows_bytes if measured is None else measured.base_bytes
    target = settled(target, who, base_bytes=base_bytes)
    train = step_source(
        config,
        source.prepared.train,
        shuffle=config.data.shuffle,
        alone=alone is not None,
        mixed=True,
        share=not config.train.neftune_alpha,
    )
    steps = count_steps(config, train.steps_per_epoch)
    draft = _Draft(config, target, who, figures, base_bytes, train, steps, alone is not None)
    budget, tried, budget_says = _budget(draft, measured)
    rows = source.prepared.train
    course = lay_out(train, rows, figures, steps=steps, budget=budget, patience=patience)
    load = draft.load(max(budget, tried), course)
    memory = plan_memory(who, load, target, recomputed=recomputed_layers(config, shape))
    held = source.prepared.validation
    held_out = None if held is None else held.figures()
    plan = RunPlan(
        config=config,
        target=target,
        shape=shape,
        subject=who,
        precision=chosen,
        precision_says=precision_says,
        budget=budget,
        budget_says=budget_says,
        figures=figures,
        course=course,
        load=load,
        memory=memory,
        time=TimePlan(None, "", None),
        disk=_disk(config, who, course),
        alone_because=alone,
        held_out=held_out,
        adapter=source.adapter,
    )
    return replace(plan, time=plan_time(plan, measured))


@dataclass(frozen=True)
class _Draft:
    """What is known of a run before its budget is chosen."""

    config: Config
    target: Target
    subject: Subject
    figures: Figures
    base_bytes: int
    steps_of: StepSource
    steps: int
    alone: bool

    def load(self, budget: int, course: Course | None) -> Load:
        """What Packs of at most `budget` tokens come to; without a course, a step has several."""
        figures, longest = self.figures, max(1, self.figures.longest)
        worst = longest if self.alone else max(budget, longest)
        chunks = 2 * self.subject.chunk_positions
        predictions = max(min(worst, chunks), 0 if course is None else course.predictions)
        return Load(
            rehearsed=worst,
            predictions=min(predictions, worst),
            longest=longest,
            accumulates=course is None or course.most_passes > self.target.count,
            rows_bytes=_ROW_BYTES * figures.tokens,
            base_bytes=0 if self.target.kind == "cuda" else self.base_bytes,
        )

    def layout(self, budget: int) -> list[Weight]:
        """The Packs of a few steps."""
        packs = (
            pack
            for k in range(min(self.steps, SAMPLED_STEPS))
            for pack in self.steps_of.step(k, budget).packs
        )
        return [Weight(pack.num_tokens, pack.visible_pairs) for pack in packs]

    def fits(self, budget: int) -> bool:
        """Whether Packs of so many tokens fit, with as much computed again as may be."""
        layers = recomputed_layers(self.config, self.subject.shape)
        return plan_memory(
            self.subject, self.load(budget, None), self.target, recomputed=layers
        ).fits


def _precision(
    config: Config, shape: Shape, target: Target, known: Precision | None
) -> tuple[Precision, str, Measured | None]:
    """The arithmetic of the step, why, and what a rehearsal on this machine measured in it."""

    def remembered(precision: Precision) -> Measured | None:
        if not target.is_here or target.count > 1:
            return None
        threads = config.compute.threads
        count = threads if isinstance(threads, int) else machine.default_threads()
        return recall(occasion(config, shape, threads=count, precision=precision))

    said = config.train.precision
    if said != "auto":
        return said, "as set", remembered(said)
    if known is not None:
        return known, "measured", remembered(known)
    if target.kind == "cuda" and target.card is not None:
        if target.card.bf16 is None and not target.is_here:
            return "fp32", "the card has no bf16 units", None
        return "bf16", "the card's own", remembered("bf16")
    options: tuple[Precision, ...] = ("fp32", "bf16")
    found: list[tuple[Precision, Measured]] = [
        (name, one) for name in options if (one := remembered(name)) is not None
    ]
    if found:
        name, measured = max(found, key=lambda item: item[1].at)
        return name, "measured here before", measured
    return "fp32", "assumed; measured before step 1", None


def _budget(draft: _Draft, measured: Measured | None) -> tuple[int, int, str]:
    """Most tokens of a Pack, the largest that the rehearsal tries, and why."""
    wanted = draft.config.compute.micro_batch_tokens
    longest = draft.figures.longest
    if draft.alone:
        return longest, longest, "rows run one at a time"
    if isinstance(wanted, int):
        return wanted, wanted, "as set"
    room = max((budget for budget in BUDGETS if draft.fits(budget)), default=0)
    if not room:
        return BUDGETS[0], BUDGETS[0], "the smallest: none fits"
    budgets = worth_trying(draft.layout, room)
    if draft.target.kind == "cuda":
        return budgets[-1], budgets[-1], "the largest that fits and is of use"
    if measured is None:
        return budgets[-1], budgets[-1], "at most; chosen by the rehearsal"
    tried = [budget for budget in budgets if budget <= max(measured.speeds.token)] or budgets
    chosen = cheapest(budgets, measured.speeds, draft.layout)
    return chosen, max(tried), "the fastest by the last rehearsal"


def plan_time(plan: RunPlan, measured: Measured | None) -> TimePlan:
    """Seconds of a run by what a rehearsal measured; for cards, what they cannot beat."""
    at_least = None
    if plan.target.card is not None and plan.target.card.fp32 > 0:
        peak = plan.target.card.peak_flops(plan.precision) * plan.target.count
        at_least = flops(plan) / peak
    if measured is None or not measured.speeds.token:
        return TimePlan(None, "unknown until the rehearsal", at_least)
    seconds = course_seconds(plan, measured.speeds, measured.trained_share) * measured.pace
    return TimePlan(seconds, "by a rehearsal on this machine", at_least)


def course_seconds(plan: RunPlan, speeds: Speeds, trained_share: float) -> float:
    """Seconds of all steps and evaluations at speeds measured with so many predicting positions a token."""
    share = (_per_token(plan, plan.course.trained_share)) / _per_token(plan, trained_share)
    steps = plan.course.scaled(speeds.seconds) * share
    held = plan.held_out
    if held is None or not plan.course.computed_tokens:
        return steps
    forward = 1 / 3 if plan.subject.how.trains_all else 1 / 2
    times = math.ceil(plan.course.steps / evaluation_steps(plan.config, plan.course.steps))
    return steps + times * held.tokens * forward * steps / plan.course.computed_tokens


def evaluation_steps(config: Config, steps: int) -> int:
    """Steps between evaluations."""
    return config.train.eval_steps or save_steps(config, steps)


def save_steps(config: Config, steps: int) -> int:
    """Steps between checkpoints."""
    return config.train.save_steps or max(1, math.ceil(steps / 10))


def flops(plan: RunPlan) -> float:
    """Floating-point operations of all steps: matrix products, attention's own included."""
    shape, course = plan.shape, plan.course
    pairs = sum(pack.pairs for pack in course.weights) * course.steps / max(1, course.laid_out)
    attention = (
        12 * shape.query * shape.layers * pairs
    )  # scores and values; forward once, backward twice
    return course.computed_tokens * _per_token(plan, course.trained_share) + attention


def _per_token(plan: RunPlan, trained_share: float) -> float:
    """Operations for each token that is computed: 2N forward, 2N or 4N backward (frozen or trained weights)."""
    shape = plan.shape
    times = 6 if plan.subject.how.trains_all else 4
    return times * (shape.matrix_parameters + trained_share * shape.vocabulary * shape.hidden)


def _disk(config: Config, who: Subject, course: Course) -> DiskPlan:
    folder = Path(config.output.dir) if config.output.dir else Path("runs")
    there = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), Path("/"))
    saves = math.ceil(course.steps / save_steps(config, course.steps))
    artifact = who.adapter_bytes if who.beside else float(who.shape.file_bytes)
    return DiskPlan(
        checkpoint_bytes=round(who.checkpoint_bytes),
        checkpoints=min(saves, config.train.save_total_limit) + min(saves, _CHECKPOINTS_BESIDE),
        artifact_bytes=round(artifact),
        free_bytes=shutil.disk_usage(there).free,
        folder=str(folder),
    )


def family_says(plan: RunPlan) -> str | None:
    """What to say where the family's layers are not known; None where they are."""
    _, is_known = layout_of(plan.shape)
    if is_known:
        return None
    return f"layers of the family {plan.shape.family!r} are counted as Llama's: the memory is an estimate"
