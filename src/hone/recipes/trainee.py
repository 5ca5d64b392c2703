"""A model that is trained call by call: loaded once, its weights and optimizer exactly those of its newest checkpoint.

Each call begins from what lies on the disk, so that a process which goes on and one which begins anew do the same.
A call is kept at once or not at all: its checkpoint gets its name when everything else is written. A call that was
broken off goes on from its own last state, if the very same one comes again; any other begins at the newest checkpoint.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from hone.config.sections import Config
from hone.config.write import to_yaml
from hone.data.dataset import Figures
from hone.data.importers.row_file import RowFile
from hone.data.prepare import Prepared, Rows, prepare
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from hone.engine.cost import Weight
from hone.engine.loop import Outcome
from hone.engine.loop import train as run_loop
from hone.engine.memory import keep_freed_memory
from hone.engine.optimizer import places_of, require_package, trained_parameters, update_bytes
from hone.engine.plan import Plan
from hone.engine.progress import Progress
from hone.engine.rehearsal import rehearse
from hone.engine.schedule import Rates
from hone.engine.state import PROGRESS
from hone.engine.stop import ShouldStop
from hone.errors import ConfigError, EnvironmentFault, ModelError, NothingLeft
from hone.models import facts
from hone.models.adapters import state_of
from hone.models.recompute import recompute
from hone.models.source import check_weights, fingerprint, read_config
from hone.models.tuning import Start
from hone.recipes.build import Built, build, resolve_precision, resolve_threads
from hone.recipes.cache import cache_folder
from hone.recipes.call_steps import Call, Called, CallSteps
from hone.recipes.identity import versions
from hone.recipes.source import load_tokenizer
from hone.recipes.speed import layers_to_recompute, quicken, take_device, why_not_compile
from hone.recipes.trainee_checkpoint import Position, TraineeCheckpoints
from hone.runs.checkpoint import Checkpoint, CheckpointStore
from hone.runs.events import EventLog, Say
from hone.runs.folder import RunFolder

_CACHED_BYTES = 8 * 2**20  # of rows; fewer are prepared in memory
_LEAST_SAVE_STEPS = 50  # between saves within a call
_SAMPLED_STEPS = 3  # steps whose layout is tried when choosing a budget


class Trainee:
    """One model in its folder; the folder's lock is held while it lives. Use `open_trainee`."""

    def __init__(
        self,
        folder: RunFolder,
        checkpoints: TraineeCheckpoints,
        config: Config,
        say: Say,
        should_stop: ShouldStop,
    ) -> None:
        self._folder = folder
        self._checkpoints = checkpoints
        self._config = config
        self._say = say
        self._should_stop = should_stop
        self._base = Path(config.model.name)
        self._adapter = Path(config.model.adapter) if config.model.adapter else None
        self._built: Built | None = None
        self._longest = 0  # row that the built model was made for
        self._is_quick = False
        self._tokenizer = load_tokenizer(config.model, self._base)
        self._template = _template(self._tokenizer, config)
        self._keep_identity()

    @property
    def limit(self) -> int:
        """Tokens of the longest row; longer ones are dropped. Raises ModelError where nothing says it."""
        own = facts.longest_row(read_config(self._base))
        asked = self._config.data.max_length
        if asked is None and own is None:
            raise ModelError(
                "the model's config does not say how long a row may be",
                where=str(self._base / "config.json"),
                remedy="set init_args={'max_seq_length': ...} in _internal_config",
            )
        if asked is not None and own is not None and asked > own:
            raise ConfigError(
                f"max_seq_length={asked} is more than the model's limit of {own} tokens",
                remedy=f"set it to {own} or less",
            )
        return int(asked or own or 0)

    def begin(self) -> int:
        """Write the checkpoint of step 0 where there is none; returns the newest step."""
        newest = self._checkpoints.newest()
        if newest is not None:
            return newest
        built = self._model(self.limit)
        self._write(built, step=0, position=Position(0, 0))
        return 0

    def train(self, call: Call, tell: Callable[[Mapping[str, Any]], object]) -> Called:
        """Train on the call's rows and write the next checkpoint; `tell` hears beforehand what will be done.

        Raises DataError, OutOfMemory, NonFiniteError, DiskError, and what `should_stop` answers: then the newest
        checkpoint is as it was.
        """
        step = self.begin()
        position = self._checkpoints.position(step)
        try:
            prepared = self._prepare(call)
        except NothingLeft as error:
            self._say("notice", code="nothing-left", message=f"{error.what}; nothing was trained")
            return Called(step, 0, position.gradient_steps, None, 0)
        with contextlib.closing(prepared):
            return self._train(call, prepared, step, position, tell)

    def _train(
        self,
        call: Call,
        prepared: Prepared,
        step: int,
        position: Position,
        tell: Callable[[Mapping[str, Any]], object],
    ) -> Called:
        figures = prepared.train.figures()
        built = self._model(figures.longest)
        state = self._settled_state(position)
        if state is None:
            position = Position(position.gradient_steps, 0)
            self._load_adapter(built, step)
        steps = CallSteps.of(
            prepared.train,
            self._config.compute,
            batch_size=call.batch_size,
            first=position.state_step,
            alone=built.alone_because is not None,
        )
        dropped = prepared.train.num_rows - sum(given - lost for given, lost in steps.counts)
        if not len(steps):
            return Called(step, 0, position.gradient_steps, None, dropped)
        self._quicken(built, figures)
        pending, resume = self._pending(call, step, position, len(steps))
        tell(
            {
                "first": position.state_step,
                "counts": steps.counts,
                "dropped": dropped,
                "done": 0 if resume is None else resume.step - position.state_step,
                "tokens_done": 0 if resume is None else _tokens(resume) - _tokens(state),
            }
        )
        outcome = self._loop(built, steps, call, figures, pending, resume or state)
        return self._keep(built, outcome, step, position, len(steps), dropped, pending, call.name)

    def _keep(
        self,
        built: Built,
        outcome: Outcome,
        step: int,
        position: Position,
        steps: int,
        dropped: int,
        pending: CheckpointStore,
        name: str,
    ) -> Called:
        """Make the call's end the model's state: the optimizer's first, the checkpoint's name last."""
        last = pending.latest(self._say)
        if last is None or last.step != outcome.steps:
            raise EnvironmentFault(
                "the state that the call ended with cannot be read back",
                where=str(pending.folder),
                remedy="is the disk sound? the same call goes on from the last state that is whole",
            )
        self._checkpoints.settle(last)
        now = Position(position.gradient_steps + steps, outcome.steps)
        self._write(built, step=step + 1, position=now, call=name)
        self._folder.update_identity(pending=None)
        shutil.rmtree(pending.folder, ignore_errors=True)
        return Called(step + 1, steps, now.gradient_steps, outcome.loss, dropped)

    def _loop(
        self,
        built: Built,
        steps: CallSteps,
        call: Call,
        figures: Figures,
        pending: CheckpointStore,
        resume: Checkpoint | None,
    ) -> Outcome:
        config, count = self._config.train, len(steps)
        rates = call.rates * count if len(call.rates) == 1 else call.rates[:count]
        plan = Plan(
            steps=steps.first + count,
            learning_rate=max(rates),
            rates=Rates(steps.first, rates),
            budgets=self._budgets(built, steps, figures),
            optimizer=config.optimizer,
            weight_decay=config.weight_decay,
            betas=self._config.betas,
            max_grad_norm=config.max_grad_norm,
            seed=config.seed,
            steps_per_epoch=count,
            save_steps=max(_LEAST_SAVE_STEPS, -(-count // 10)),
        )
        built.loss.zero_grad(set_to_none=True)  # a call that failed may have left some
        self._say("phase", name="training")
        return run_loop(
            built.loss,
            steps,
            plan,
            checkpoints=pending,
            say=self._say,
            should_stop=self._should_stop,
            resume=resume,
            on_budget=self._keep_budget,
            write_report=self._folder.write_report,
            model=built.tuned.adapted or built.model,
        )

    def _budgets(
        self, built: Built, steps: CallSteps, figures: Figures
    ) -> tuple[tuple[int, int], ...]:
        """The token budgets of the model's life; rehearsed at its first call, and where a longer row comes."""
        identity = self._folder.read_identity() or {}
        wanted = self._config.compute.micro_batch_tokens
        same = identity.get("budget_asked_for", wanted) == wanted
        kept: list[list[int]] = identity.get("budgets") or [] if same else []
        layers = layers_to_recompute(built, self._config.compute)
        if kept and figures.longest <= int(identity.get("rehearsed_longest") or 0):
            recompute(built.model, layers if layers is not None else identity.get("recomputed", 0))
            return tuple((int(a), int(b)) for a, b in kept)
        self._say("phase", name="rehearsal")
        sample = range(steps.first, steps.first + min(len(steps), _SAMPLED_STEPS))

        def layout(budget: int) -> list[Weight]:
            packs = (pack for k in sample for pack in steps.step(k, budget).packs)
            return [Weight(pack.num_tokens, pack.visible_pairs) for pack in packs]

        trained = trained_parameters(built.loss)
        rehearsed = rehearse(
            built.loss,
            longest=figures.longest,
            wanted=wanted if isinstance(wanted, int) else None,
            trained_share=figures.trained_tokens / max(1, figures.tokens),
            state_bytes=update_bytes(
                self._config.train.optimizer, trained, places_of(built.loss, trained)
            ),
            layout=layout,
            layers=layers,
        )
        self._say(
            "rehearsed",
            **rehearsed.told(),
            trained_parameters=sum(one.numel() for one in trained.values()),
            steps=len(steps),
        )
        kept = [*kept, [steps.first + 1 if kept else 1, rehearsed.micro_batch_tokens]]
        self._folder.update_identity(
            budgets=kept,
            budget_asked_for=wanted,
            recomputed=rehearsed.recomputed,
            rehearsed_longest=figures.longest,
        )
        return tuple((int(a), int(b)) for a, b in kept)

    def _keep_budget(self, from_step: int, tokens: int) -> None:
        kept: list[list[int]] = (self._folder.read_identity() or {}).get("budgets") or []
        self._folder.update_identity(budgets=[*kept, [from_step, tokens]])

    def _pending(
        self, call: Call, step: int, position: Position, count: int
    ) -> tuple[CheckpointStore, Checkpoint | None]:
        """Where the call's own states lie, and the newest of them if this very call was broken off."""
        told = {
            "call": call.fingerprint,
            "step": step,
            "first": position.state_step,
            "steps": count,
        }
        folder = self._folder.path / "pending"
        identity = self._folder.read_identity() or {}
        if identity.get("pending") != told:
            shutil.rmtree(folder, ignore_errors=True)
            kept: list[list[int]] = identity.get("budgets") or []
            budgets = [one for one in kept if one[0] <= position.state_step + 1]
            self._folder.update_identity(pending=told, budgets=budgets)
        store = CheckpointStore(folder, keep=1)
        return store, store.latest(self._say)

    def _settled_state(self, position: Position) -> Checkpoint | None:
        """The optimizer's state beside the newest checkpoint; None where there is none, which is said."""
        if position.state_step == 0:
            return None
        state = self._checkpoints.state(position, self._say)
        if state is None:
            message = "no optimizer state lies beside the newest checkpoint: its weights are trained on, moments begin anew"
            self._say("notice", code="no-optimizer-state", message=message)
            self._checkpoints.forget_states()
            self._folder.update_identity(budgets=None)
        return state

    def _load_adapter(self, built: Built, step: int) -> None:
        """Give the model the weights of a checkpoint, and its generator the beginning."""
        assert built.tuned.adapted is not None
        saved: dict[str, Tensor] = safetensors.torch.load_file(
            self._checkpoints.folder(step) / "adapter_model.safetensors"
        )
        now = state_of(built.tuned.adapted)
        if saved.keys() != now.keys():
            odd = sorted(saved.keys() ^ now.keys())[0]
            raise EnvironmentFault(
                f"the checkpoint is of another adapter: {odd} is only on one side",
                where=str(self._checkpoints.folder(step)),
                remedy="give the lora_config that the model was registered with, or another name",
            )
        with torch.no_grad():
            for name, tensor in now.items():
                tensor.copy_(saved[name])
        torch.manual_seed(self._config.train.seed)

    def _prepare(self, call: Call) -> Prepared:
        section = self._config.data.model_copy(
            update={"path": str(call.rows), "train_on": call.train_on}
        )
        is_large = call.rows.stat().st_size >= _CACHED_BYTES
        return prepare(
            section,
            rows=[Rows(RowFile(call.rows, "trajectories"), section)],
            tokenizer=self._tokenizer,
            template=self._template,
            max_length=self.limit,
            cache_dir=cache_folder() / "data" if is_large else None,
            say=lambda event, about: self._say(event, **about),
        )

    def _model(self, longest: int) -> Built:
        """The model, loaded at the first call, and anew where a longer row changes how rows are run."""
        longest = longest if facts.depends_on_longest(read_config(self._base)) else 0
        if self._built is not None and longest <= self._longest:
            return self._built
        self._built, self._is_quick, self._longest = None, False, longest
        identity = self._folder.read_identity() or {}
        torch.set_num_threads(int(identity["threads"]))
        device = take_device(self._config.compute, identity.get("device"), say=self._say)
        kept = identity.get("precision") if self._config.train.precision == "auto" else None
        precision = kept or resolve_precision(
            self._base, self._config, say=self._say, device=device
        )
        self._folder.update_identity(device=device.type, precision=precision)
        self._say("phase", name="loading")
        self._built = build(
            self._base,
            self._config,
            precision=precision,
            longest=longest,
            say=self._say,
            device=device,
            start=Start(self._adapter, self._tokenizer.new, self._tokenizer.vocab_size),
        )
        return self._built

    def _quicken(self, built: Built, figures: Figures) -> None:
        if self._is_quick:
            return
        identity = self._folder.read_identity() or {}
        why_not = why_not_compile(built, self._config, figures, identity)
        self._folder.update_identity(not_compiled=why_not)
        quicken(
            built,
            self._config,
            precision=identity["precision"],
            why_not_compiled=why_not,
            say=self._say,
        )
        self._is_quick = True

    def made_by(self, name: str) -> Called | None:
        """What the call of this name came to, if a checkpoint came of it; None where it is yet to train."""
        step = self._checkpoints.made_by(name)
        if step is None:
            return None
        position, before = self._checkpoints.position(step), self._checkpoints.position(step - 1)
        steps = position.gradient_steps - before.gradient_steps
        return Called(step, steps, position.gradient_steps, None, 0)

    def _write(self, built: Built, *, step: int, position: Position, call: str = "") -> None:
        self._say("phase", name="saving")
        path = self._checkpoints.write(
            step,
            position,
            base=self._base,
            built=built,
            tokenizer=self._tokenizer,
            template=self._template.source,
            call=call,
        )
        self._say("checkpoint", step=step, path=str(path), gradient_steps=position.gradient_steps)

    def _keep_identity(self) -> None:
        """What must not change in the model's life; the rest is as it is said now."""
        require_package(self._config.train.optimizer)
        check_weights(self._base)
        model = fingerprint(self._base)
        tuning = self._config.tuning.model_dump(mode="json")
        before = self._folder.read_identity()
        if before is None:
            threads = resolve_threads(self._config.compute.threads)
            before = {"budgets": None, "precision": None, "pending": None, "threads": threads}
        elif before.get("model") != model or before.get("tuning") != tuning:
            other = "base model" if before.get("model") != model else "adapter (lora_config)"
            raise ConfigError(
                f"this model was registered with another {other}",
                where=str(self._folder.path.parent),
                remedy="take what it was registered with (model.json), or another name",
            )
        self._folder.write_config(to_yaml(self._config))
        self._folder.write_identity(
            {**before, "model": model, "tuning": tuning, "versions": versions(),
             "config": self._config.model_dump(mode="json")}
        )  # fmt: skip


@contextlib.contextmanager
def open_trainee(
    path: Path, base_name: str, config: Config, *, say: Say, should_stop: ShouldStop,
    attach: Callable[[EventLog], object],
) -> Generator[Trainee]:  # fmt: skip
    """The model in the folder `path`, locked. `config` names its base by a folder, `base_name` as a loader finds it.

    `attach` is told the run's log as soon as it is open. Raises LockedError where a live process trains it.
    """
    keep_freed_memory()
    folder = RunFolder.create(path / "training")
    with folder.lock(), folder.events() as log:
        attach(log)
        checkpoints = TraineeCheckpoints(path / "checkpoints", folder.checkpoints_folder, base_name)
        yield Trainee(folder, checkpoints, config, say, should_stop)


def _template(tokenizer: TextTokenizer, config: Config) -> ChatTemplate:
    """The chat template, thinking switched off and kept as it is written where it knows these switches."""
    asked = config.data.template_kwargs
    plain = load_template(tokenizer, choice=config.data.template, variables=asked)
    switches = {"enable_thinking": False, "preserve_thinking": True}
    known = {key: value for key, value in switches.items() if plain.mentions(key)}
    if not known:
        return plain
    return load_template(tokenizer, choice=config.data.template, variables={**known, **asked})


def _tokens(state: Checkpoint | None) -> int:
    """Tokens of all gradient steps before a state."""
    return 0 if state is None else Progress.decode((state.path / PROGRESS).read_bytes()).tokens
