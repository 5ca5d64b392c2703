"""The training loop: steps, and what surrounds a step. It knows no rows, no screens and no folders.

It gets a module that turns a Pack into its term of the loss, a source of steps, and numbers; it says what
happens. Killed at any instant and resumed from its last checkpoint, it ends with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import fsum, isfinite, nan
from pathlib import Path
from typing import NoReturn, cast

import torch
from torch import Tensor, nn

from hone.engine.account import StepAccount
from hone.engine.ahead import Ahead, Source
from hone.engine.budget import Budgets, is_out_of_memory, smaller_budget
from hone.engine.callbacks import Callback, Callbacks, Training
from hone.engine.deal import Spread, deal
from hone.engine.diagnosis import report_not_finite
from hone.engine.evaluate import HeldOut, evaluate
from hone.engine.flops import Gauge
from hone.engine.memory import free_caches, peak_memory_bytes
from hone.engine.module import LossModule
from hone.engine.numbers import read_numbers
from hone.engine.optimizer import low_halves, plan_optimizer, remarks, set_learning_rate
from hone.engine.parts import RowLosses
from hone.engine.plan import Plan
from hone.engine.progress import Progress
from hone.engine.state import random_state, set_random_state
from hone.engine.stop import ShouldStop, agreed, never
from hone.engine.strategy import Replicated, Strategy, own_packs
from hone.errors import CallbackError, NonFiniteError, OutOfMemory
from hone.models.compiled import graphs
from hone.pack import Pack, Step
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


Optimizers = Callable[[Mapping[str, nn.Parameter]], torch.optim.Optimizer]
"""Makes the optimizer of trained parameters, its state allocated."""


def train(
    module: LossModule,
    source: Source,
    plan: Plan,
    *,
    checkpoints: CheckpointStore | None,
    say: Say,
    should_stop: ShouldStop = never,
    resume: Checkpoint | None = None,
    held_out: HeldOut | None = None,
    on_budget: Callable[[int, int], object] | None = None,
    write_report: Callable[[str, Mapping[str, object]], object] | None = None,
    gauge: Gauge | None = None,
    callbacks: Sequence[Callback] = (),
    model: nn.Module | None = None,
    strategy: Strategy | None = None,
    make_optimizer: Optimizers | None = None,
) -> Outcome:
    """Train until `plan.steps` steps are done, an early stop, or a request to stop.

    `on_budget(from_step, micro_batch_tokens)` must have made a halving durable when it returns: the step is
    redone after it. `write_report(name, report)` keeps what is known of a step that failed. `gauge` gives
    steps their utilisation; `model` is what callbacks see of `module`. `strategy` says how several ranks share
    the work (None: this process alone); of these only the first has `checkpoints` and `callbacks`.
    `make_optimizer` stands in for the plan's own.

    Raises NonFiniteError before the optimizer moves, OutOfMemory, DiskError, CallbackError (after a save), and
    what `should_stop` answers (after a save).
    """
    strategy = strategy if strategy is not None else Replicated(module)
    world = strategy.ranks.world
    if world > 1:
        source = Spread(source, world, plan.speeds)
        held_out = None if held_out is None else Spread(held_out, world, plan.speeds)
    with Ahead(source, ready=own_packs(module, strategy, plan.speeds)) as ahead:
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
            strategy=strategy,
            make_optimizer=make_optimizer,
        )
        return loop.run(resume, callbacks, model)


@dataclass(kw_only=True, eq=False)
class _Loop:
    """The state of one call of `train`."""

    module: LossModule
    source: Source
    plan: Plan
    ahead: Ahead
    checkpoints: CheckpointStore | None
    say: Say
    should_stop: ShouldStop
    held_out: HeldOut | None
    on_budget: Callable[[int, int], object] | None
    write_report: Callable[[str, Mapping[str, object]], object] | None
    gauge: Gauge | None
    strategy: Strategy
    make_optimizer: Optimizers | None

    def __post_init__(self) -> None:
        self.ranks = self.strategy.ranks
        trained, places = self.strategy.trained, self.strategy.places
        self.device = next(iter(trained.values())).device
        if self.strategy.optimizer is None:
            make = self.make_optimizer or partial(
                plan_optimizer, self.plan, places=places, lows=low_halves(self.module)
            )
            self.strategy.adopt(make(trained))
        self.optimizer = cast(torch.optim.Optimizer, self.strategy.optimizer)
        for sentence in remarks(self.plan.optimizer, trained, places):
            self.say("notice", code="optimizer", message=sentence)
        self.budgets = Budgets(self.plan.budgets)
        self.progress = Progress()
        self.saved_step = 0  # of the newest checkpoint
        self.score: float | None = None  # held-out loss of the present weights
        self.graphs = graphs()
        self.improved = False  # whether it is the best one, and not saved yet
        self.row_terms: list[Tensor] = []  # of this rank's Packs of this step
        self.account = StepAccount(self.gauge, self.say)
        self.busy_seconds = 0.0  # of the step's backward passes on this rank

    def run(
        self, resume: Checkpoint | None, callbacks: Sequence[Callback], model: nn.Module | None
    ) -> Outcome:
        training = Training(
            steps=self.plan.steps,
            steps_per_epoch=self.plan.steps_per_epoch,
            model=model if model is not None else cast(nn.Module, self.module),
            evaluate=self.evaluate_for_callback,
            alone=self.ranks.is_alone,
        )
        self.callbacks = Callbacks(callbacks, training, restore=lambda: self.module.train(True))
        if resume is not None:
            self.ranks.work("reading the checkpoint")
            self.progress = self.strategy.read(resume.path)
            self.saved_step = self.progress.step
            self.say("resumed", step=self.progress.step)
        if self.checkpoints is not None:
            to_come = -(-(self.plan.steps - self.progress.step) // self.plan.save_steps)
            self.checkpoints.check_space(self.strategy.state_bytes(), saves=to_come)
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
            if self.ranks.is_alone and self.progress.step > self.saved_step:
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
        step, packs, terms = self.gradients(index)
        if step.weight <= 0:
            self.pass_over(step)
            return
        self.strategy.reduce()
        norm = self.strategy.norm()
        self.ranks.pack(f"step {index + 1}, its loss and norm")
        # The one place where the host waits for the device: nothing may move before this is known.
        n = len(terms)
        numbers = read_numbers([*terms, *self.row_terms, *([] if norm is None else [norm])])
        losses, norm_value = numbers[:n], 0.0 if norm is None else numbers.pop()
        loss = fsum(self.ranks.each(fsum(losses))[0])
        if not (isfinite(loss) and isfinite(norm_value)):
            self.refuse(step, packs, losses, norm_value)
        rate = self.plan.course.rate(index)
        set_learning_rate(self.optimizer, rate)
        self.score = None
        norm_value = self.update(norm, norm_value)
        if not isfinite(norm_value):
            self.refuse(step, packs, losses, norm_value)
        counts = {
            "tokens": step.tokens,
            "trained_tokens": step.trained_tokens,
            "computed_tokens": step.computed_tokens,
        }
        peaks, busy_seconds = self.ranks.each(peak_memory_bytes(self.device), self.busy_seconds)
        seconds = time.perf_counter() - began
        rows = self.rows_of(step, numbers[n:])
        self.progress = self.progress.after_step(loss=loss, seconds=seconds, **counts)
        fields: dict[str, object] = {
            "step": index + 1,
            "steps": self.plan.steps,
            "loss": loss,
            "grad_norm": norm_value,
            "learning_rate": rate,
            **counts,
            "seconds": seconds,
            "peak_memory_bytes": int(max(peaks)),
            "epoch": (index + 1) / self.plan.steps_per_epoch,
            **self.account.fields(step, rows, seconds),
            **({} if self.ranks.is_alone else {"busy_seconds": busy_seconds}),
        }
        self.say("step", **fields)
        self.say_graphs()
        self.account.watch(step, rows, loss)
        self.callbacks.stepped(metrics_of("step", fields))

    def rows_of(self, step: Step, row_terms: Sequence[float]) -> RowLosses | None:
        """The losses of a step's rows, of all ranks' Packs, where the module tells them."""
        hands = deal(step.packs, self.ranks.world, self.plan.speeds)
        told: list[list[float]] = self.ranks.gather(list(row_terms))
        return RowLosses.of_hands(step, hands, told, scale=self.strategy.loss_scale / step.weight)

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

    def gradients(self, index: int) -> tuple[Step, Sequence[Pack], list[Tensor]]:
        """Lay the step out and run this rank's Packs backward, with a smaller budget as often as memory demands."""
        while True:
            budget = self.budgets.at(index + 1)
            self.ranks.work(f"the rows of step {index + 1}")
            step = self.ahead.take(index, budget)
            if index + 1 < self.plan.steps:
                self.ahead.prepare(index + 1, self.budgets.at(index + 2))
            if step.weight <= 0:
                return step, (), []
            packs = self.strategy.passes(deal(step.packs, self.ranks.world, self.plan.speeds))
            before = random_state()
            terms = self.run_backward(step, packs)
            if terms is None and not self.strategy.redoes:
                self.begin_anew(self.source, step, from_step=index + 1)
            if not self.ranks.any(terms is None):
                return step, packs, terms or []
            # Here, not in a handler: the error holds the frames, and they hold the activations.
            del terms
            self.strategy.discard()
            set_random_state(before)
            free_caches()
            self.lower_budget(self.source, step, budget, from_step=index + 1)

    def run_backward(self, step: Step, packs: Sequence[Pack]) -> list[Tensor] | None:
        """Each Pack's term of the loss, the gradients added up; None where memory ran out."""
        terms: list[Tensor] = []
        began = time.perf_counter()
        self.row_terms.clear()
        try:
            self.module.begin_step(step.index, self.plan.seed)
            for number, pack in enumerate(packs, start=1):
                self.ranks.pack(f"step {step.index + 1}, Pack {number} of {len(packs)}")
                last = number == len(packs)
                terms.append(self.strategy.backward(pack, 1.0 / step.weight, last=last))
                if self.module.row_terms is not None:
                    self.row_terms.append(self.module.row_terms)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            self.busy_seconds = time.perf_counter() - began
            return terms
        return None

    def lower_budget(self, source: Source, step: Step, budget: int, *, from_step: int) -> int:
        """Halve the budget for the rest of the run, durably before it is used; returns the new one."""
        if not self.strategy.redoes:
            self.begin_anew(source, step, from_step=from_step)
        lower = smaller_budget(source, step, budget, from_step=from_step)
        if self.on_budget is not None:
            self.on_budget(from_step, lower)
        self.ranks.wait("the smaller budget")
        self.budgets.lower(from_step, lower)
        self.say("halved", step=from_step, micro_batch_tokens=lower)
        return lower

    def begin_anew(self, source: Source, step: Step, *, from_step: int) -> NoReturn:
        """End this rank: others wait inside a pass for it, so the run goes on from its last checkpoint."""
        budget = self.budgets.at(from_step)
        fault = OutOfMemory(
            f"out of memory in step {from_step} on rank {self.ranks.rank}",
            remedy="the same command resumes from the last checkpoint",
        )
        fault.smaller = (
            from_step,
            smaller_budget(source, step, budget, from_step=from_step),
        )
        raise fault

    def refuse(
        self, step: Step, packs: Sequence[Pack], losses: list[float], norm: float
    ) -> NoReturn:
        """Stop with the weights untouched, naming the rows."""
        report = report_not_finite(
            self.strategy,
            self.source,
            step,
            packs,
            losses=losses,
            norm=norm,
            speeds=self.plan.speeds,
        )
        if self.write_report is not None:
            self.write_report(f"nonfinite-step-{step.index + 1:08d}", report.as_json())
        suspects = report.suspects or step.row_names
        raise NonFiniteError(
            f"step {step.index + 1}: the loss is {report.loss} and the gradient norm {norm}; "
            "the weights were not changed",
            where=", ".join(suspects[:8]) + (" ..." if len(suspects) > 8 else ""),
            remedy="look at these rows (hone preview), lower train.learning_rate, or set "
            "train.precision=fp32",
        )

    def update(self, norm: Tensor | None, norm_value: float) -> float:
        """Clip, and let the optimizer move; the norm of the gradient."""
        try:
            return self.strategy.update(norm, norm_value, self.plan.max_grad_norm)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # Some weights may have moved: no retry, and nothing is saved any more.
            raise OutOfMemory(
                "out of memory in the optimizer's update",
                remedy="take tuning.method=lora or a smaller model, or free memory on this machine; "
                "the same command resumes from the last checkpoint",
            ) from error

    def settle(self) -> None:
        """What follows a step: its evaluation, its checkpoint, and the answer to a request to stop."""
        done = self.progress.step
        if self.evaluation_due:
            self.evaluate()
        self.callbacks.end_step(is_last=self.ended)
        asked = agreed(self.should_stop(), self.ranks)
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
            self.strategy,
            speeds=self.plan.speeds,
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
        """A checkpoint: every rank writes its part where the first one says, which seals and names it."""
        self.ranks.work(f"saving step {self.progress.step}")
        if self.checkpoints is None:
            self.write_part(None)
            self.saved_step = self.progress.step
        else:
            checkpoint = self.checkpoints.save(
                self.progress.step,
                self.write_part,
                score=self.score,
                needed_bytes=self.strategy.state_bytes(),
            )
            self.saved_step = checkpoint.step
            self.say("saved", step=checkpoint.step, path=str(checkpoint.path))
            self.callbacks.saved(str(checkpoint.path))
        self.improved = False
        self.ranks.wait("the checkpoint")

    def write_part(self, folder: Path | None) -> None:
        """Write this rank's part; return when all parts are written."""
        told: str = self.ranks.tell(str(folder))
        self.strategy.write(Path(told), self.progress)
        self.ranks.wait("every rank's part of the checkpoint")

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
