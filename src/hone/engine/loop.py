"""The training loop: steps, and what surrounds a step. It knows no rows, no screens and no folders.

It gets a module that turns a Pack into its term of the loss, a source of steps, and numbers; it says what
happens. Killed at any instant and resumed from its last checkpoint, it ends with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isfinite, nan
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from hone.engine.account import StepAccount
from hone.engine.ahead import Ahead, Source
from hone.engine.budget import Budgets, halved, is_out_of_memory
from hone.engine.callbacks import Callback, Callbacks, Training
from hone.engine.diagnosis import report_not_finite
from hone.engine.evaluate import HeldOut, evaluate
from hone.engine.flops import Gauge
from hone.engine.memory import free_caches, peak_memory_bytes
from hone.engine.module import LossModule
from hone.engine.moments import Place
from hone.engine.numbers import read_numbers
from hone.engine.optimizer import (
    build_optimizer,
    clip_gradients,
    gradient_norm,
    low_halves,
    places_of,
    remarks,
    set_learning_rate,
    trained_parameters,
)
from hone.engine.parts import RowLosses
from hone.engine.plan import Plan
from hone.engine.progress import Progress
from hone.engine.state import random_state, read_state, set_random_state, state_bytes, write_state
from hone.engine.stop import ShouldStop, never
from hone.errors import CallbackError, NonFiniteError, OutOfMemory
from hone.models.compiled import graphs
from hone.pack import Step
from hone.runs.checkpoint import Checkpoint, CheckpointStore
from hone.runs.events import Say
from hone.runs.metrics import metrics_of


@dataclass(frozen=True)
class Outcome:
    """How a run ended. The module holds the last weights."""

    steps: int
    """Finished steps."""
    loss: float
    """Loss of the last step."""
    seconds: float
    """Wall time spent in steps, those before a resume included."""
    tokens: int
    trained_tokens: int
    computed_tokens: int
    best_step: int | None
    """After how many steps the held-out loss was least; None without evaluations."""
    best_loss: float | None
    stopped_early: bool
    """Whether the held-out loss stopped improving before all steps were done."""
    stop_reason: str | None
    """Why a callback ended the run before all steps were done; None where none did."""
    budgets: tuple[tuple[int, int], ...]
    """(from_step, micro_batch_tokens), every halving included."""


def train(
    module: LossModule,
    source: Source,
    plan: Plan,
    *,
    checkpoints: CheckpointStore,
    say: Say,
    should_stop: ShouldStop = never,
    resume: Checkpoint | None = None,
    held_out: HeldOut | None = None,
    on_budget: Callable[[int, int], object] | None = None,
    write_report: Callable[[str, Mapping[str, object]], object] | None = None,
    gauge: Gauge | None = None,
    callbacks: Sequence[Callback] = (),
    model: nn.Module | None = None,
) -> Outcome:
    """Train until `plan.steps` steps are done, an early stop, or a request to stop.

    `on_budget(from_step, micro_batch_tokens)` must have made a halving durable when it returns: the step is
    redone after it. `write_report(name, report)` keeps what is known of a step that failed. `gauge` gives
    steps their utilisation; `model` is what callbacks see of `module`.

    Raises NonFiniteError before the optimizer moves, OutOfMemory, DiskError, CallbackError (after a save), and
    what `should_stop` answers (after a save).
    """
    with Ahead(source, ready=getattr(module, "prepare", None)) as ahead:
        loop = _Loop(
            module=module,
            source=source,
            plan=plan,
            ahead=ahead,
            checkpoints=checkpoints,
            say=say,
            should_stop=should_stop,
            held_out=held_out,
            on_budget=on_budget,
            write_report=write_report,
            gauge=gauge,
        )
        return loop.run(resume, callbacks, model)


def plan_optimizer(
    plan: Plan,
    trained: Mapping[str, nn.Parameter],
    places: Mapping[str, Place],
    *,
    lows: Mapping[nn.Parameter, Tensor] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer that a plan asks for, its state allocated."""
    return build_optimizer(
        trained,
        weight_decay=plan.weight_decay,
        betas=plan.betas,
        name=plan.optimizer,
        lora_plus_ratio=plan.lora_plus_ratio,
        places=places,
        lows=lows,
    )


@dataclass(kw_only=True, eq=False)
class _Loop:
    """The state of one call of `train`."""

    module: LossModule
    source: Source
    plan: Plan
    ahead: Ahead
    checkpoints: CheckpointStore
    say: Say
    should_stop: ShouldStop
    held_out: HeldOut | None
    on_budget: Callable[[int, int], object] | None
    write_report: Callable[[str, Mapping[str, object]], object] | None
    gauge: Gauge | None

    def __post_init__(self) -> None:
        self.trained = trained_parameters(self.module)
        self.parameters = list(self.trained.values())
        self.device = self.parameters[0].device
        places = places_of(self.module, self.trained)
        lows = low_halves(self.module)
        self.optimizer = plan_optimizer(self.plan, self.trained, places, lows=lows)
        for sentence in remarks(self.plan.optimizer, self.trained, places):
            self.say("notice", code="optimizer", message=sentence)
        self.budgets = Budgets(self.plan.budgets)
        self.progress = Progress()
        self.saved_step = 0  # of the newest checkpoint
        self.score: float | None = None  # held-out loss of the present weights
        self.graphs = graphs()
        self.improved = False  # whether it is the best one, and not saved yet
        self.row_terms: list[Tensor] = []  # of the Packs of this step
        self.account = StepAccount(self.gauge, self.say)

    def run(
        self, resume: Checkpoint | None, callbacks: Sequence[Callback], model: nn.Module | None
    ) -> Outcome:
        training = Training(
            steps=self.plan.steps,
            steps_per_epoch=self.plan.steps_per_epoch,
            model=model if model is not None else cast(nn.Module, self.module),
            evaluate=self.evaluate_for_callback,
        )
        self.callbacks = Callbacks(callbacks, training, restore=lambda: self.module.train(True))
        if resume is not None:
            self.progress = read_state(resume.path, trained=self.trained, optimizer=self.optimizer)
            self.saved_step = self.progress.step
            self.say("resumed", step=self.progress.step)
        to_come = -(-(self.plan.steps - self.progress.step) // self.plan.save_steps)
        needed = state_bytes(self.trained, self.optimizer)
        self.checkpoints.check_space(needed, saves=to_come)
        self.module.train(True)
        try:
            self.callbacks.begin_training(self.progress.step)
            self.settle()
            while not self.ended:
                self.callbacks.begin_step()
                self.take_step()
                self.settle()
            self.callbacks.end_training()
        except CallbackError:  # raised between two steps: what was done is whole
            if self.progress.step > self.saved_step:
                self.save()
            raise
        return self.outcome()

    @property
    def stopped_early(self) -> bool:
        return self.plan.early_stop is not None and self.progress.stale >= self.plan.early_stop

    @property
    def ended(self) -> bool:
        asked = self.callbacks.run.stop_reason is not None
        return self.progress.step >= self.plan.steps or self.stopped_early or asked

    def take_step(self) -> None:
        """One optimizer update. Its loss is sum(weight x nll) / sum(weight) over the whole step."""
        began = time.perf_counter()
        index = self.progress.step
        step, terms = self.gradients(index)
        if step.weight <= 0:
            self.pass_over(step)
            return
        norm = gradient_norm(self.parameters)
        # The one place where the host waits for the device: nothing may move before this is known.
        n = len(terms)
        numbers = read_numbers([*terms, norm, *self.row_terms])
        losses, norm_value = numbers[:n], numbers[n]
        if not all(map(isfinite, (*losses, norm_value))):
            self.refuse(step, losses, norm_value)
        loss = fsum(losses)
        if 0 < self.plan.max_grad_norm < norm_value:
            clip_gradients(self.parameters, norm, self.plan.max_grad_norm)
        rate = self.plan.course.rate(index)
        set_learning_rate(self.optimizer, rate)
        self.score = None
        self.update()
        counts = {
            "tokens": step.tokens,
            "trained_tokens": step.trained_tokens,
            "computed_tokens": step.computed_tokens,
        }
        seconds = time.perf_counter() - began
        rows = self.rows_of(step, numbers[n + 1 :])
        self.progress = self.progress.after_step(loss=loss, seconds=seconds, **counts)
        fields: dict[str, object] = {
            "step": index + 1,
            "steps": self.plan.steps,
            "loss": loss,
            "grad_norm": norm_value,
            "learning_rate": rate,
            **counts,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "epoch": (index + 1) / self.plan.steps_per_epoch,
            **self.account.fields(step, rows, seconds),
        }
        self.say("step", **fields)
        self.say_graphs()
        self.account.watch(step, rows, loss)
        self.callbacks.stepped(metrics_of("step", fields))

    def rows_of(self, step: Step, row_terms: Sequence[float]) -> RowLosses | None:
        """The losses of a step's rows, where the module tells them."""
        if not row_terms:
            return None
        return RowLosses.of(step, step.packs, row_terms, scale=1.0 / step.weight)

    def say_graphs(self) -> None:
        """Say it where something was compiled on the way: after the rehearsal nothing should be."""
        before, self.graphs = self.graphs, graphs()
        if self.graphs > before:
            self.say("compiled", step=self.progress.step, graphs=self.graphs - before)

    def pass_over(self, step: Step) -> None:
        """A step all of whose rows were dropped: it counts, and changes nothing."""
        self.progress = self.progress.after_empty_step()
        self.say(
            "notice",
            code="empty-step",
            message=f"step {step.index + 1} was passed over: all of its rows were dropped "
            f"({', '.join(step.row_names[:3])}{' ...' if len(step.row_names) > 3 else ''})",
        )
        self.callbacks.stepped({})

    def gradients(self, index: int) -> tuple[Step, list[Tensor]]:
        """Lay the step out and run it backward, with a smaller budget as often as memory demands."""
        while True:
            budget = self.budgets.at(index + 1)
            step = self.ahead.take(index, budget)
            if index + 1 < self.plan.steps:
                self.ahead.prepare(index + 1, self.budgets.at(index + 2))
            terms = self.run_backward(step) if step.weight > 0 else []
            if terms is not None:
                return step, terms
            self.lower_budget(self.source, step, budget, from_step=index + 1)

    def run_backward(self, step: Step) -> list[Tensor] | None:
        """Each Pack's term of the loss, the gradients added up; None where memory ran out, nothing left behind."""
        before = random_state()
        terms: list[Tensor] = []
        self.row_terms.clear()
        try:
            self.module.begin_step(step.index, self.plan.seed)
            for pack in step.packs:
                term = self.module(pack, 1.0 / step.weight)
                cast("Any", term).backward()
                terms.append(term.detach())
                if self.module.row_terms is not None:
                    self.row_terms.append(self.module.row_terms)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return terms
        # Here, not in the handler: the error holds the frames, and they hold the activations.
        terms.clear()
        self.optimizer.zero_grad(set_to_none=True)
        set_random_state(before)
        free_caches()
        return None

    def lower_budget(self, source: Source, step: Step, budget: int, *, from_step: int) -> int:
        """Halve the budget for the rest of the run, durably before it is used; returns the new one."""
        alone = source.step(step.index, 1).packs
        longest = max(alone, key=lambda pack: pack.num_tokens)
        lower = halved(
            budget,
            largest_pack=max(pack.num_tokens for pack in step.packs),
            longest_example=longest.num_tokens,
        )
        if lower is None:
            raise OutOfMemory(
                f"out of memory in step {from_step} with every Example alone; the longest has "
                f"{longest.num_tokens:,} tokens",
                where=step.row_names[int(longest.row[0])],
                remedy="lower data.max_length, set compute.gradient_checkpointing=true, take "
                "tuning.method=lora or a smaller model, or free memory on this machine",
            )
        if self.on_budget is not None:
            self.on_budget(from_step, lower)
        self.budgets.lower(from_step, lower)
        self.say("halved", step=from_step, micro_batch_tokens=lower)
        return lower

    def refuse(self, step: Step, losses: list[float], norm: float) -> NoReturn:
        """Stop with the weights untouched, naming the rows."""
        report = report_not_finite(self.module, self.source, step, losses=losses, norm=norm)
        if self.write_report is not None:
            self.write_report(f"nonfinite-step-{step.index + 1:08d}", report.as_json())
        suspects = report.suspects or step.row_names
        raise NonFiniteError(
            f"step {step.index + 1}: the loss is {sum(losses)} and the gradient norm {norm}; "
            "the weights were not changed",
            where=", ".join(suspects[:8]) + (" ..." if len(suspects) > 8 else ""),
            remedy="look at these rows (hone preview), lower train.learning_rate, or set "
            "train.precision=fp32",
        )

    def update(self) -> None:
        try:
            cast("Any", self.optimizer).step()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # Some weights may have moved: no retry, and nothing is saved any more.
            raise OutOfMemory(
                "out of memory in the optimizer's update",
                remedy="take tuning.method=lora or a smaller model, or free memory on this machine; "
                "the same command resumes from the last checkpoint",
            ) from error
        self.optimizer.zero_grad(set_to_none=True)

    def settle(self) -> None:
        """What follows a step: its evaluation, its checkpoint, and the answer to a request to stop."""
        done = self.progress.step
        if self.evaluation_due:
            self.evaluate()
        self.callbacks.end_step(is_last=self.ended)
        asked = self.should_stop()
        wanted = self.callbacks.run.save_wanted or self.plan.saves_at(done)
        if self.improved or (
            done > self.saved_step and (asked is not None or self.ended or wanted)
        ):
            self.save()
        if asked is not None and (self.evaluation_due or not self.ended):
            self.say("stopped", step=done, signal=asked.signal_name)
            raise asked

    @property
    def evaluation_due(self) -> bool:
        done = self.progress.step
        wanted = self.held_out is not None and self.plan.evaluates_at(done)
        return wanted and self.progress.evaluated_step != done

    def evaluate_for_callback(self) -> float | None:
        """The held-out loss of the present weights, taken if it is not known yet."""
        if self.progress.evaluated_step != self.progress.step or self.score is None:
            self.evaluate()
        return self.score

    def evaluate(self) -> None:
        """Take the held-out loss. A request to stop leaves it for later."""
        if self.held_out is None:
            return
        done = self.progress.step
        evaluation = evaluate(
            self.module,
            self.held_out,
            micro_batch_tokens=self.budgets.at(done + 1),  # lowered from there on, never before
            lower=lambda source, step, budget: self.lower_budget(
                source, step, budget, from_step=done + 1
            ),
            should_stop=self.should_stop,
        )
        if evaluation is None:
            return
        self.score = evaluation.loss if isfinite(evaluation.loss) else None
        if (
            self.progress.evaluated_step != done
        ):  # one at step 0, or asked for again, counts for nothing
            self.progress = self.progress.after_evaluation(self.score)
            self.improved = self.progress.best_step == done
        fields: dict[str, object] = {
            "step": done,
            "loss": evaluation.loss,
            "rows": evaluation.rows,
            "trained_tokens": evaluation.trained_tokens,
        }
        if evaluation.sources:
            fields["sources"] = {name: part.to_json() for name, part in evaluation.sources.items()}
        self.say("evaluated", **fields)
        self.callbacks.evaluated(metrics_of("evaluated", fields))

    def save(self) -> None:
        checkpoint = self.checkpoints.save(
            self.progress.step,
            lambda folder: write_state(
                folder, trained=self.trained, optimizer=self.optimizer, progress=self.progress
            ),
            score=self.score,
            needed_bytes=state_bytes(self.trained, self.optimizer),
        )
        self.saved_step = checkpoint.step
        self.improved = False
        self.say("saved", step=checkpoint.step, path=str(checkpoint.path))
        self.callbacks.saved(str(checkpoint.path))

    def outcome(self) -> Outcome:
        done = self.progress
        return Outcome(
            steps=done.step,
            loss=done.loss if done.loss is not None else nan,
            seconds=done.seconds,
            tokens=done.tokens,
            trained_tokens=done.trained_tokens,
            computed_tokens=done.computed_tokens,
            best_step=done.best_step,
            best_loss=done.best_loss,
            stopped_early=self.stopped_early,
            stop_reason=self.callbacks.run.stop_reason,
            budgets=self.budgets.entries,
        )
