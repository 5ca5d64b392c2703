"""Training: from a configuration to a tuned model in a run folder. The page to read first.

rows -> Examples -> order -> Packs -> the loop -> the artifact; what happens on the way is said as events.
"""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from hone.config.layers import Resolved, idle_settings
from hone.config.sections import Config
from hone.config.write import to_yaml
from hone.data.dataset import Figures
from hone.data.prepare import say_data
from hone.data.steps import StepSource
from hone.engine.callbacks import Callback, check_callbacks
from hone.engine.cost import Weight
from hone.engine.loop import Outcome
from hone.engine.loop import train as run_loop
from hone.engine.memory import keep_freed_memory
from hone.engine.optimizer import places_of, require_package, trained_parameters, update_bytes
from hone.engine.plan import Plan
from hone.engine.rehearsal import Rehearsed, rehearse
from hone.engine.state import read_weights
from hone.engine.stop import StopRequest
from hone.errors import ConfigError, EnvironmentFault, HoneError, LockedError, Stopped
from hone.models import facts
from hone.models.adapters import digest
from hone.models.recompute import recompute
from hone.models.source import read_config
from hone.models.tuning import Start
from hone.recipes.artifact import write_artifact
from hone.recipes.build import (
    Built,
    build,
    resolve_precision,
    resolve_threads,
    trained_parameter_count,
)
from hone.recipes.card import write_card
from hone.recipes.continued import continued
from hone.recipes.gauge import read_gauge
from hone.recipes.herald import Herald
from hone.recipes.identity import changes, refuse_changes, versions
from hone.recipes.memory_fault import memory_faults
from hone.recipes.rows import source_weights
from hone.recipes.samples import Sampler
from hone.recipes.source import Source, read_source, turn_ends
from hone.recipes.speed import layers_to_recompute, quicken, take_device, why_not_compile
from hone.runs.checkpoint import CheckpointStore
from hone.runs.curve import draw_png, read_curve
from hone.runs.events import Listener
from hone.runs.folder import RunFolder
from hone.runs.trackers.choice import check_installed
from hone.runs.tracking import Tracking

_AHEAD_STEPS = 64  # steps whose rows are prepared before the held-out ones
_SAMPLED_STEPS = 3  # steps whose layout is tried when choosing a budget


@dataclass(frozen=True)
class Trained:
    """What a run came to."""

    folder: Path
    steps: int
    loss: float
    validation_loss: float | None
    seconds: float


def train(
    resolved: Resolved,
    *,
    fresh: bool = False,
    accept_changes: bool = False,
    command: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    callbacks: Sequence[Callback] = (),
) -> Trained:
    """Train as `resolved` says; the same call resumes what was begun in the same folder.

    `command` is what the user typed, for messages; `callbacks` are called while it trains
    (`hone.engine.callbacks`). Raises ConfigError, DataError, ModelError, LockedError, EnvironmentFault
    and DiskError before anything is written where the input is at fault; later what the loop raises.
    """
    resolved = continued(resolved)
    config = resolved.config
    check_callbacks(callbacks)
    check_installed(config.output.trackers)
    began = time.monotonic()
    require_package(config.train.optimizer)
    keep_freed_memory()
    path = Path(config.output.dir) if config.output.dir else default_folder(config)
    herald = Herald(listeners)
    _refuse_live(path)
    herald.say("phase", name="reading")
    for sentence in idle_settings(resolved):
        herald.say("notice", code="idle-setting", message=sentence)
    source = read_source(config, herald.say)
    with (
        contextlib.closing(source.prepared),
        StopRequest(shlex.join(command) or "the same command") as stop,
        _opened(path, fresh=fresh, herald=herald) as folder,
    ):
        try:
            run = _Run(folder, config, source, herald, stop, list(command), callbacks)
            with memory_faults(lambda: herald.phase):
                return run.go(began, accept_changes=accept_changes)
        except HoneError as error:
            if not isinstance(error, Stopped):
                herald.say("failed", error=error.what, exit_code=error.exit_code)
            raise


def default_folder(config: Config) -> Path:
    """`runs/<data>-<model>`: the same command finds its run again."""
    paths = [config.data.path] if config.data.path else [one.path for one in config.data.sources]
    data = "+".join(Path(path).stem for path in paths[:3]) or "rows"
    model = config.model.name.rstrip("/").rsplit("/", 1)[-1] or "model"
    return Path("runs") / f"{data}-{model}"


def _refuse_live(path: Path) -> None:
    owner = RunFolder(path).owner() if path.is_dir() else None
    if owner is not None:
        raise LockedError(
            f"a live run uses this folder ({owner})",
            where=str(path),
            remedy="wait for it, stop it, or choose another --output",
        )


def _refuse_endless_warmup(warmup_steps: int | None, steps: int) -> None:
    if warmup_steps is not None and warmup_steps > steps:
        raise ConfigError(
            f"train.warmup_steps is {warmup_steps:,}, and the run has {steps:,} steps",
            remedy=f"set it to at most {steps:,}, or give train.warmup_ratio instead",
        )


@contextlib.contextmanager
def _opened(path: Path, *, fresh: bool, herald: Herald) -> Generator[RunFolder]:
    """The run folder, locked, its log open. With `fresh`, what was there steps aside."""
    if fresh and path.is_dir() and RunFolder(path).is_run:
        aside = path.with_name(f"{path.name}.before-{datetime.now():%Y%m%d-%H%M%S}")
        path.rename(aside)
        herald.say("notice", code="moved", message=f"the run that was in {path} is now in {aside}")
    folder = RunFolder.create(path)
    with folder.lock(), folder.events() as log:
        herald.attach(log)
        yield folder


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
    ) -> None:
        self.callbacks = callbacks
        self.folder = folder
        self.config = config
        self.source = source
        self.say = herald.say
        self.stop = stop
        self.command = command

    def go(self, began: float, *, accept_changes: bool) -> Trained:
        before = self.folder.read_identity()
        if before is not None:
            found = changes(before, self.config, self.source.hashes)
            if not accept_changes:
                refuse_changes(found, folder=str(self.folder.path), command=self.command)
            if before.get("finished") and not found:
                return self._already(before)
            self._say_versions(before)
        self.say("started", folder=str(self.folder.path), command=shlex.join(self.command))
        self._keep_config(before)
        with Tracking(self.folder, self.config.output.trackers, self.say):
            return self._train(began, measure_anew=accept_changes)

    def _train(self, began: float, *, measure_anew: bool) -> Trained:
        identity = self.folder.read_identity() or {}
        torch.set_num_threads(int(identity["threads"]))
        device = take_device(self.config.compute, identity.get("device"), say=self.say)
        self.folder.update_identity(device=device.type)
        precision = identity.get("precision")
        if precision is None or measure_anew:
            precision = resolve_precision(
                self.source.base, self.config, say=self.say, device=device
            )
            self.folder.update_identity(precision=precision, product_flops_per_second=None)
        self.say("phase", name="loading")
        longest = self._figures().longest
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
        self._same_beginning(built, identity)
        why_not = why_not_compile(built, self.config, self._figures(), identity)
        self.folder.update_identity(not_compiled=why_not)
        quicken(built, self.config, precision=precision, why_not_compiled=why_not, say=self.say)
        plan = self._plan(built, identity)
        compute = self.config.compute
        would_share = compute.share_prefixes and compute.pack and built.alone_because is None
        if self.config.train.neftune_alpha and would_share:
            message = "train.neftune_alpha: the noise depends on a row's length, so rows share no beginning"
            self.say("notice", code="no-sharing", message=message)
        self.gauge = read_gauge(built.loss, plan, self.folder, self.say)
        self.say("phase", name="training")
        store = self.folder.checkpoints(keep=self.config.train.save_total_limit)
        outcome = self._loop(built, plan, store)
        return self._finish(built, store, outcome, began)

    def _same_beginning(self, built: Built, identity: Mapping[str, Any]) -> None:
        """Where an initialisation took its part out of the base, a resume must take the very same part."""
        if not built.tuned.beginning:
            return
        now = digest(built.tuned.beginning)
        before = identity.get("beginning")
        if before is None:
            self.folder.update_identity(beginning=now)
        elif before != now:
            raise EnvironmentFault(
                f"tuning.lora.init={self.config.tuning.lora.init} does not come out as it did when this run began: "
                "its checkpoints stand on another base",
                where=str(self.folder.path),
                remedy="resume with the versions and on the machine that it began with, or start over with --fresh",
            )

    def _already(self, before: Mapping[str, Any]) -> Trained:
        done = before["finished"]
        self.say(
            "notice",
            code="finished",
            message="this run is finished; --fresh starts over, "
            "another setting with --accept-changes goes on",
        )
        return Trained(
            self.folder.path, done["steps"], done["loss"], done["validation_loss"], done["seconds"]
        )

    def _say_versions(self, before: Mapping[str, Any]) -> None:
        then: dict[str, str] = before.get("versions") or {}
        now = versions()
        other = [f"{k} {then.get(k)} -> {v}" for k, v in now.items() if then.get(k) != v]
        if other:
            self.say(
                "notice",
                code="versions",
                message=f"resumed under other versions ({', '.join(other)}): the last bits may differ",
            )

    def _keep_config(self, before: Mapping[str, Any] | None) -> None:
        self.folder.write_config(to_yaml(self.config))
        self.folder.write_ledger(self.source.prepared.ledger_json())
        kept = before or {"budgets": None, "precision": None}
        threads = kept.get("threads") or resolve_threads(self.config.compute.threads)
        self.folder.write_identity(
            {
                **kept,
                **self.source.hashes,
                "config": self.config.model_dump(mode="json"),
                "versions": versions(),
                "threads": threads,
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

    def _last_ledger(self) -> dict[str, Any]:
        """What became of every row, told once more where that was not known at the beginning."""
        prepared = self.source.prepared
        told = prepared.ledger_json()
        if told != self.folder.read_ledger():
            for ledger in prepared.ledgers:
                say_data(ledger, lambda event, about: self.say(event, **about))
            self.folder.write_ledger(told)
        return told

    def _steps(
        self, rows: Any, *, shuffle: bool, alone: bool, mixed: bool = False, share: bool = True
    ) -> StepSource:
        return StepSource(
            rows,
            batch_size=self.config.train.batch_size,
            seed=self.config.train.seed,
            shuffle=shuffle,
            share_prefixes=self.config.compute.share_prefixes and share and not alone,
            pack=self.config.compute.pack and not alone,
            weights=source_weights(self.config.data, rows.row_counts) if mixed else None,
            sources=[file.name for file in rows.files],
        )

    def _plan(self, built: Built, identity: Mapping[str, Any]) -> Plan:
        """The loop's numbers; budgets from the run's beginning, or from a rehearsal now."""
        config = self.config.train
        alone = built.alone_because is not None
        rows = self.source.prepared.train
        self.training = self._steps(
            rows,
            shuffle=self.config.data.shuffle,
            alone=alone,
            mixed=True,
            share=not config.neftune_alpha,
        )
        per_epoch = self.training.steps_per_epoch
        steps = config.max_steps or max(1, math.ceil(config.epochs * per_epoch - 1e-9))
        _refuse_endless_warmup(config.warmup_steps, steps)
        budgets = identity.get("budgets")
        layers = layers_to_recompute(built, self.config.compute)
        if budgets is None:
            rehearsed = self._rehearse(built, steps, layers)
            budgets = [(1, rehearsed.micro_batch_tokens)]
            self.folder.update_identity(budgets=budgets, recomputed=rehearsed.recomputed)
        else:
            recompute(built.model, layers if layers is not None else identity.get("recomputed", 0))
        save = config.save_steps or max(1, math.ceil(steps / 10))
        held_out = self.source.prepared.validation is not None
        return Plan(
            steps=steps,
            learning_rate=self.config.learning_rate,
            budgets=tuple((int(a), int(b)) for a, b in budgets),
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

    def _rehearse(self, built: Built, steps: int, layers: int | None) -> Rehearsed:
        self.say("phase", name="rehearsal")
        figures = self._figures()
        if figures.is_estimate:
            self.say(
                "notice",
                code="estimated",
                message=f"figures are estimated from {figures.ready:,} of {figures.rows:,} rows; "
                "the others are prepared while training runs",
            )
        wanted = self.config.compute.micro_batch_tokens
        sample = range(min(steps, _SAMPLED_STEPS))

        def layout(budget: int) -> list[Weight]:
            packs = (pack for k in sample for pack in self.training.step(k, budget).packs)
            return [Weight(pack.num_tokens, pack.visible_pairs) for pack in packs]

        trained = trained_parameters(built.loss)
        places = places_of(built.loss, trained)
        rehearsed = rehearse(
            built.loss,
            longest=figures.longest,
            wanted=wanted if isinstance(wanted, int) else None,
            trained_share=figures.trained_tokens / max(1, figures.tokens),
            state_bytes=update_bytes(self.config.train.optimizer, trained, places),
            layout=layout,
            layers=layers,
        )
        self.say(
            "rehearsed",
            **rehearsed.told(),
            trained_parameters=trained_parameter_count(built.loss),
            steps=steps,
        )
        return rehearsed

    def _loop(self, built: Built, plan: Plan, store: CheckpointStore) -> Outcome:
        validation = self.source.prepared.validation
        alone = built.alone_because is not None
        held_out = (
            None if validation is None else self._steps(validation, shuffle=False, alone=alone)
        )
        resume = store.latest(self.say)
        done = 0 if resume is None else resume.step
        callbacks = list(self.callbacks)
        if self.config.train.sample_steps is not None:
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
                on_budget=self._keep_budget,
                write_report=self.folder.write_report,
                gauge=self.gauge,
                callbacks=callbacks,
                model=built.tuned.adapted or built.model,
            )

    def _keep_budget(self, from_step: int, tokens: int) -> None:
        kept: list[list[int]] = (self.folder.read_identity() or {}).get("budgets") or []
        self.folder.update_identity(budgets=[*kept, [from_step, tokens]])

    def _finish(
        self, built: Built, store: CheckpointStore, outcome: Outcome, began: float
    ) -> Trained:
        self.say("phase", name="saving")
        if outcome.stopped_early:
            best = store.best()
            if best is not None:
                named = {n: p for n, p in built.loss.named_parameters() if p.requires_grad}
                read_weights(best.path, trained=named)
                message = f"stopped early: the artifact holds the weights of step {best.step}"
                self.say("notice", code="early-stop", message=message)
        elif outcome.stop_reason is not None:
            message = f"training ended after step {outcome.steps}: {outcome.stop_reason}"
            self.say("notice", code="callback-stop", message=message)
        card = write_card(
            config=self.config,
            outcome=outcome,
            hashes=self.source.hashes,
            ledger=self._last_ledger(),
            versions=versions(),
            precision=str((self.folder.read_identity() or {}).get("precision")),
        )
        write_artifact(
            self.folder.path,
            base=self.source.base,
            base_name=self._base_name(),
            model=built.model,
            tuned=built.tuned,
            tokenizer=self.source.tokenizer,
            template=self.source.template.source,
            stop_ids=turn_ends(self.source),
            card=card,
        )
        curve = read_curve(self.folder.events_file, title=self.folder.name)
        draw_png(curve, self.folder.curve_file)
        seconds = time.monotonic() - began
        done = {
            "steps": outcome.steps,
            "loss": outcome.loss,
            "validation_loss": outcome.best_loss,
            "seconds": seconds,
        }
        self.folder.update_identity(finished=done)
        self.say("finished", path=str(self.folder.path), **done)
        return Trained(self.folder.path, outcome.steps, outcome.loss, outcome.best_loss, seconds)

    def _base_name(self) -> str:
        """What a loader finds again from anywhere: a hub id as it is, a folder as a whole path."""
        name = self.config.model.name
        return os.path.realpath(name) if Path(name).expanduser().is_dir() else name
