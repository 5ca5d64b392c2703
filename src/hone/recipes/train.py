"""Training: from a configuration to a tuned model in a run folder. The page to read first.

rows -> Examples -> order -> Packs -> the loop -> the artifact; what happens on the way is said as events.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from hone.config.layers import Resolved, idle_settings
from hone.config.sections import Config
from hone.config.write import to_yaml
from hone.data.dataset import Figures
from hone.engine.callbacks import Callback, check_callbacks
from hone.engine.cost import Speeds
from hone.engine.deal import longest_hands
from hone.engine.loop import Outcome
from hone.engine.loop import train as run_loop
from hone.engine.memory import settle_memory
from hone.engine.optimizer import plan_optimizer, require_package
from hone.engine.plan import Plan
from hone.engine.ranks import Ranks
from hone.engine.stop import StopRequest
from hone.engine.strategy import Strategy
from hone.errors import HoneError, Stopped
from hone.models import facts
from hone.models.source import read_config
from hone.models.tuning import Start
from hone.models.unsloth import require_unsloth
from hone.recipes import result
from hone.recipes.agreement import same_beginning, same_sharing
from hone.recipes.artifact import artifact_tensors
from hone.recipes.build import (
    Built,
    build,
    resolve_precision,
    resolve_threads,
)
from hone.recipes.continued import continued
from hone.recipes.course import count_steps, step_source
from hone.recipes.forecast import Forecast
from hone.recipes.gauge import Measures, read_gauge
from hone.recipes.herald import Herald, Silent
from hone.recipes.holding import (
    StrategyName,
    asked_strategy,
    is_sharded,
    is_zero,
    refuse_in_parts,
)
from hone.recipes.identity import (
    changes,
    refuse_changes,
    say_other_ranks,
    say_other_versions,
    versions,
)
from hone.recipes.measured import measure
from hone.recipes.memory_fault import memory_faults
from hone.recipes.opening import opened, read_together, refuse_endless_warmup, refuse_live
from hone.recipes.plan import SAMPLED_STEPS, save_steps
from hone.recipes.samples import Sampler
from hone.recipes.source import Source
from hone.recipes.speed import layers_to_recompute, quicken, take_device, why_not_compile
from hone.recipes.subject import Precision
from hone.recipes.together import Together, choose_strategy, lay_over
from hone.recipes.trained import Trained, run_path
from hone.runs.checkpoint import Checkpoint, CheckpointStore
from hone.runs.events import Listener
from hone.runs.folder import RunFolder
from hone.runs.trackers.choice import check_installed
from hone.runs.tracking import Tracking

_AHEAD_STEPS = 64  # steps whose rows are prepared before the held-out ones

_T = TypeVar("_T")


def train(
    resolved: Resolved,
    *,
    fresh: bool = False,
    accept_changes: bool = False,
    command: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    callbacks: Sequence[Callback] = (),
    ranks: Ranks | None = None,
    lower: tuple[int, int] | None = None,
) -> Trained:
    """Train as `resolved` says; the same call resumes what was begun in the same folder.

    `command` is what the user typed, for messages; `callbacks` are called while it trains
    (`hone.engine.callbacks`). All of several `ranks` call this; the first one writes, speaks and calls back.
    `lower` is (from_step, micro_batch_tokens) of a start anew after memory ran out. Raises ConfigError,
    DataError, ModelError, LockedError, EnvironmentFault and DiskError before anything is written where the
    input is at fault; later what the loop raises.
    """
    resolved = continued(resolved)
    config = resolved.config
    check_callbacks(callbacks)
    check_installed(config.output.trackers)
    began = time.monotonic()
    require_package(config.train.optimizer)
    if config.model.loader == "unsloth":
        require_unsloth()
    settle_memory(recomputes=config.compute.gradient_checkpointing not in ("auto", False, 0))
    ranks = ranks or Ranks()
    refuse_in_parts(config, asked_strategy(config.compute, ranks.world))
    path = run_path(config)
    herald = Herald(listeners) if ranks.is_first else Silent()
    if ranks.is_first:
        refuse_live(path)
    herald.say("phase", name="reading")
    for sentence in idle_settings(resolved):
        herald.say("notice", code="idle-setting", message=sentence)
    source = read_together(config, herald, ranks)
    with (
        contextlib.closing(source.prepared),
        StopRequest(shlex.join(command) or "the same command") as stop,
        opened(path, fresh=fresh, herald=herald, ranks=ranks) as folder,
    ):
        try:
            run = _Run(folder, config, source, herald, stop, list(command), callbacks, ranks)
            with memory_faults(lambda: herald.phase):
                return run.go(began, accept_changes=accept_changes, lower=lower)
        except HoneError as error:
            if not isinstance(error, Stopped):
                herald.say("failed", error=error.what, exit_code=error.exit_code)
            raise


class _Run:
    """One run in its folder, from the locked folder to the artifact."""

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        source: Source,
        herald: Herald,
        stop: StopRequest,
        command: list[str],
        callbacks: Sequence[Callback],
        ranks: Ranks,
    ) -> None:
        self.callbacks = callbacks
        self.folder = folder
        self.config = config
        self.source = source
        self.say = herald.say
        self.stop = stop
        self.command = command
        self.ranks = ranks

    def go(self, began: float, *, accept_changes: bool, lower: tuple[int, int] | None) -> Trained:
        begun = self._begin(accept_changes) if self.ranks.is_first else {}
        begun: dict[str, Any] = self.ranks.tell(begun)
        if begun["finished"]:
            return self._already(begun["finished"])
        trackers = self.config.output.trackers if self.ranks.is_first else []
        with Tracking(self.folder, trackers, self.say):
            return self._train(began, measure_anew=accept_changes, lower=lower)

    def _begin(self, accept_changes: bool) -> dict[str, Any]:
        """What the first rank does before any other: look at what lies in the folder, and keep what is meant now."""
        before = self.folder.read_identity()
        if before is not None:
            found = changes(before, self.config, self.source.hashes)
            if not accept_changes:
                refuse_changes(found, folder=str(self.folder.path), command=self.command)
            if before.get("finished") and not found:
                return {"finished": before["finished"]}
            say_other_versions(before, self.say)
        self.say("started", folder=str(self.folder.path), command=shlex.join(self.command))
        self._keep_config(before)
        return {"finished": None}

    def _train(self, began: float, *, measure_anew: bool, lower: tuple[int, int] | None) -> Trained:
        identity = self._identity()
        torch.set_num_threads(int(identity["threads"]))
        device = take_device(self.config.compute, identity.get("device"), say=self.say)
        if self.ranks.is_first:
            self.folder.update_identity(device=device.type)
        precision = identity.get("precision")
        if precision is None or measure_anew:
            precision = self._first_rank_says(lambda: self._precision(device))
        self.forecast = None
        if self.ranks.is_first:
            chosen = cast("Precision", precision)
            local = self.ranks.local_world
            self.forecast = Forecast(self.config, self.source, chosen, local_ranks=local)
            self.forecast.tell(self.say)
        self.say("phase", name="loading")
        self.ranks.work("loading the model")
        longest = int(self._first_rank_says(self._figures_json)["longest"])
        built = build(
            self.source.base,
            self.config,
            precision=precision,
            longest=longest,
            say=self.say,
            device=device,
            start=Start(
                self.source.adapter, self.source.tokenizer.new, self.source.tokenizer.vocab_size
            ),
        )
        same_beginning(built, identity, self.config, self.folder, self.ranks)
        same_sharing(built, self.ranks)
        name = choose_strategy(
            self.config, built.loss, self.ranks, held=identity["held"], say=self.say
        )
        self._quicken(built, name, identity, precision)
        measures = Measures.of(built.loss)
        together = self._together(built, name, identity, precision, longest)
        plan = self._plan(built, together, identity, lower)
        compute = self.config.compute
        would_share = compute.share_prefixes and compute.pack and built.alone_because is None
        if self.config.train.neftune_alpha and would_share:
            message = "train.neftune_alpha: the noise depends on a row's length, so rows share no beginning"
            self.say("notice", code="no-sharing", message=message)
        store, self.gauge = None, None
        if self.ranks.is_first:
            self.gauge = read_gauge(measures, plan, self.folder, self.say, ranks=self.ranks.world)
            store = self.folder.checkpoints(keep=self.config.train.save_total_limit)
        self.say("phase", name="training")
        outcome = self._loop(built, together.strategy, plan, store)
        if self.forecast is not None:
            self.forecast.compare(outcome.seconds, steps=outcome.steps)
        return self._finish(built, together.strategy, store, outcome, began)

    def _first_rank_says(self, what: Callable[[], _T]) -> _T:
        """An answer that only the first rank works out."""
        return self.ranks.tell(what() if self.ranks.is_first else None)

    def _identity(self) -> dict[str, Any]:
        return self._first_rank_says(lambda: self.folder.read_identity() or {})

    def _precision(self, device: torch.device) -> str:
        precision = resolve_precision(self.source.base, self.config, say=self.say, device=device)
        self.folder.update_identity(precision=precision, product_flops_per_second=None)
        return precision

    def _quicken(
        self, built: Built, name: StrategyName, identity: Mapping[str, Any], precision: str
    ) -> None:
        """Put on what makes steps fast, as the first rank decides and the run keeps it."""
        in_parts = is_sharded(name)

        def why_not() -> str | None:
            if in_parts:
                return f"under {name} ranks hold parts of the weights"
            return why_not_compile(built, self.config, self._figures(), identity)

        why = self._first_rank_says(why_not)
        if self.ranks.is_first:
            self.folder.update_identity(not_compiled=why)
        quicken(
            built,
            self.config,
            precision=precision,
            why_not_compiled=why,
            in_parts=in_parts,
            say=self.say,
        )

    def _figures_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self._figures())

    def _already(self, done: Mapping[str, Any]) -> Trained:
        self.say(
            "notice",
            code="finished",
            message="this run is finished; --fresh starts over, "
            "another setting with --accept-changes goes on",
        )
        return Trained(
            self.folder.path, done["steps"], done["loss"], done["validation_loss"], done["seconds"]
        )

    def _together(
        self,
        built: Built,
        name: StrategyName,
        identity: Mapping[str, Any],
        precision: str,
        longest: int,
    ) -> Together:
        """Lay the model over the ranks; how, is kept with the run and said."""
        held: list[Any] | None = identity["held"]
        together = lay_over(
            name,
            self.config,
            built.loss,
            self.ranks,
            precision=precision,
            longest=longest if identity.get("budgets") is None else None,
            layers=layers_to_recompute(built, self.config.compute),
            say=self.say,
        )
        now = [self.ranks.world, together.name]
        say_other_ranks(held, now, self.say)
        if self.ranks.is_first:
            self.folder.update_identity(held=now)
        if not self.ranks.is_alone or is_sharded(together.name):
            self.say("ranks", ranks=self.ranks.world, strategy=together.name)
        return together

    def _keep_config(self, before: Mapping[str, Any] | None) -> None:
        self.folder.write_config(to_yaml(self.config))
        self.folder.write_ledger(self.source.prepared.ledger_json())
        kept = before or {"budgets": None, "precision": None, "held": None}
        # A run of before ranks were kept had one.
        held: list[Any] | None = kept.get("held") or (None if before is None else [1, "alone"])
        same = held is None or held[0] == self.ranks.world
        threads = (kept.get("threads") if same else None) or resolve_threads(
            self.config.compute.threads, sharers=self.ranks.local_world
        )
        self.folder.write_identity(
            {
                **kept,
                **self.source.hashes,
                "config": self.config.model_dump(mode="json"),
                "versions": versions(),
                "threads": threads,
                "held": held,
                "finished": None,
            }
        )

    def _figures(self) -> Figures:
        """Counts of the training rows; exact where how rows are run depends on the longest."""
        prepared = self.source.prepared
        figures = prepared.train.figures()
        if figures.is_estimate and facts.depends_on_longest(read_config(self.source.base)):
            for file in prepared.files:
                file.finish()
            figures = prepared.train.figures()
        return figures

    def _plan(
        self,
        built: Built,
        together: Together,
        identity: Mapping[str, Any],
        lower: tuple[int, int] | None,
    ) -> Plan:
        """The loop's numbers; budgets from the run's beginning, or from a rehearsal now."""
        config = self.config.train
        self.training = step_source(
            self.config,
            self.source.prepared.train,
            shuffle=self.config.data.shuffle,
            alone=built.alone_because is not None,
            mixed=True,
            share=not config.neftune_alpha,
        )
        per_epoch = self.training.steps_per_epoch
        steps = count_steps(self.config, per_epoch)
        refuse_endless_warmup(config.warmup_steps, steps)
        save = save_steps(self.config, steps)
        held_out = self.source.prepared.validation is not None
        plan = Plan(
            steps=steps,
            learning_rate=self.config.learning_rate,
            budgets=((1, 1),),
            schedule=config.schedule,
            warmup_ratio=config.warmup_ratio,
            warmup_steps=config.warmup_steps,
            min_learning_rate_ratio=config.min_learning_rate_ratio,
            decay_ratio=config.decay_ratio,
            decay_shape=config.decay_shape,
            optimizer=config.optimizer,
            weight_decay=config.weight_decay,
            betas=self.config.betas,
            lora_plus_ratio=config.lora_plus_ratio,
            max_grad_norm=config.max_grad_norm,
            seed=config.seed,
            steps_per_epoch=per_epoch,
            save_steps=save,
            eval_steps=(config.eval_steps or save) if held_out else None,
            early_stop=config.early_stop,
        )
        if is_zero(together.name):  # it takes its part of the memory before the rehearsal
            strategy = together.strategy
            strategy.adopt(plan_optimizer(plan, strategy.trained, strategy.places))
        measured = measure(
            identity,
            lower,
            config=self.config,
            loss=built.loss,
            together=together,
            layout=lambda budget: longest_hands(
                self.training, range(min(steps, SAMPLED_STEPS)), budget, self.ranks.world
            ),
            figures=lambda: Figures(**self._first_rank_says(self._figures_json)),
            layers=layers_to_recompute(built, self.config.compute),
            steps=steps,
            say=self.say,
        )
        if self.ranks.is_first:
            self.folder.update_identity(**measured)
            if self.forecast is not None and identity.get("budgets") is None:
                self.forecast.say_time(self.training, measured, self.say)
        self.ranks.wait("the budget")
        self.ranks.pulse.expect(float(measured["pack_seconds"] or 0.0))
        return dataclasses.replace(
            plan,
            budgets=tuple((int(a), int(b)) for a, b in measured["budgets"]),
            speeds=Speeds.from_json(measured["speeds"]),
        )

    def _loop(
        self, built: Built, strategy: Strategy, plan: Plan, store: CheckpointStore | None
    ) -> Outcome:
        validation = self.source.prepared.validation
        alone = built.alone_because is not None
        held_out = (
            None
            if validation is None
            else step_source(self.config, validation, shuffle=False, alone=alone)
        )
        resume = self._newest(store)
        done = 0 if resume is None else resume.step
        callbacks = list(self.callbacks)
        if self.config.train.sample_steps is not None and self.ranks.is_first:
            callbacks.insert(0, Sampler(built, self.source, self.config, self.say))
        head = _AHEAD_STEPS * self.config.train.batch_size
        self.source.prepared.follow(self.training.order_from(done), head=head)
        with self.stop.at_step_boundaries():
            return run_loop(
                built.loss,
                self.training,
                plan,
                checkpoints=store,
                say=self.say,
                should_stop=self.stop,
                resume=resume,
                held_out=held_out,
                on_budget=self._keep_budget if self.ranks.is_first else None,
                write_report=self.folder.write_report if self.ranks.is_first else None,
                gauge=self.gauge,
                callbacks=callbacks,
                model=built.tuned.adapted or built.model,
                strategy=strategy,
            )

    def _newest(self, store: CheckpointStore | None) -> Checkpoint | None:
        """The checkpoint that the first rank goes on from."""
        found = None if store is None else store.latest(self.say)
        told = self.ranks.tell(found and [str(found.path), found.step, found.score])
        return None if told is None else Checkpoint(Path(told[0]), told[1], told[2])

    def _keep_budget(self, from_step: int, tokens: int) -> None:
        kept: list[list[int]] = (self.folder.read_identity() or {}).get("budgets") or []
        self.folder.update_identity(budgets=[*kept, [from_step, tokens]])

    def _finish(
        self,
        built: Built,
        strategy: Strategy,
        store: CheckpointStore | None,
        outcome: Outcome,
        began: float,
    ) -> Trained:
        self.say("phase", name="saving")
        self.ranks.work("saving the model")
        if outcome.stopped_early or self.config.train.best_at_end:
            best = None if store is None else store.best()
            told = self.ranks.tell(best and [str(best.path), best.step])
            if told is not None:
                strategy.read_weights(Path(told[0]))
                why = "stopped early" if outcome.stopped_early else "train.best_at_end"
                message = f"{why}: the artifact holds the weights of step {told[1]}"
                self.say("notice", code="early-stop", message=message)
        elif outcome.stop_reason is not None:
            message = f"training ended after step {outcome.steps}: {outcome.stop_reason}"
            self.say("notice", code="callback-stop", message=message)
        weights = strategy.gather(artifact_tensors(built.model, built.tuned))
        if self.ranks.is_first:
            result.write(self.folder, self.config, self.source, built, weights, outcome, self.say)
        seconds = time.monotonic() - began
        done = {
            "steps": outcome.steps,
            "loss": outcome.loss,
            "validation_loss": outcome.best_loss,
            "seconds": seconds,
        }
        if self.ranks.is_first:
            self.folder.update_identity(finished=done)
            self.say("finished", path=str(self.folder.path), **done)
        self.ranks.wait("the artifact")
        return Trained(self.folder.path, outcome.steps, outcome.loss, outcome.best_loss, seconds)
