"""Callbacks of an `SFTTrainer`: the hooks, and the four that come with it. They know no torch.

    class Stop(SFTCallback):
        def on_step_end(self, trainer, step, metrics):
            if metrics["loss"] < 0.1:
                trainer.stop("the loss is low enough")

Every hook is called in the real run, between two steps, by `hone.engine.callbacks`. Steps and epochs count from 1.
`metrics` are those of `hone.runs.metrics`; what was measured on held-out rows is `val_loss` (and `eval_loss`).
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from hone.errors import ConfigError

if TYPE_CHECKING:
    from hone.trainer.sft import SFTTrainer

Metrics = Mapping[str, float]

_MARK: Final = "training_step.json"
_NAME: Final = re.compile(r"checkpoint_step_(\d+)")


class SFTCallback:
    """Override what you need. What a hook raises ends the run: saved, named; the same call resumes."""

    def on_train_begin(self, trainer: SFTTrainer) -> None:
        """Before the first step; `trainer.step` is above 0 where the run resumes."""

    def on_train_end(self, trainer: SFTTrainer) -> None:
        """After the last step; not where the run was interrupted or failed."""

    def on_epoch_begin(self, trainer: SFTTrainer, epoch: int) -> None:
        """Before the first step of a pass over the rows."""

    def on_epoch_end(self, trainer: SFTTrainer, epoch: int, metrics: Metrics) -> None:
        """After the last step of a pass; with the newest of each metric."""

    def on_step_begin(self, trainer: SFTTrainer, step: int) -> None:
        """Before a step."""

    def on_step_end(self, trainer: SFTTrainer, step: int, metrics: Metrics) -> None:
        """After a step; with `val_loss` where it was validated."""

    def on_evaluate(self, trainer: SFTTrainer, step: int, metrics: Metrics) -> None:
        """After the held-out rows were gone through; with `val_loss`."""

    def on_save(self, trainer: SFTTrainer, step: int, path: str) -> None:
        """After a checkpoint of the run is complete at `path`."""


class ValidationCallback(SFTCallback):
    """The loss on held-out rows every `eval_steps` steps, and at the end of each epoch.

    The rows are those that `validation_split` holds out, or `val_dataset`: a file or a hub id, of the same shape.
    A trainer with held-out rows has one of these without being told.
    """

    def __init__(
        self,
        val_dataset: str | Path | None = None,
        eval_steps: int = 500,
        eval_on_epoch_end: bool = True,
    ) -> None:
        if val_dataset is not None and not isinstance(val_dataset, str | Path):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"ValidationCallback: val_dataset is {type(val_dataset).__name__}",
                remedy="name a file of rows or a hub id, or leave it out for the rows of validation_split",
            )
        self.val_dataset = None if val_dataset is None else str(val_dataset)
        self.eval_steps = _count("ValidationCallback", "eval_steps", eval_steps)
        self.eval_on_epoch_end = eval_on_epoch_end
        self.best_val_loss: float | None = None
        """The least one so far, in this process."""
        self.val_losses: list[tuple[int, float]] = []
        """Each one of this process, with its step."""

    def on_step_end(self, trainer: SFTTrainer, step: int, metrics: Metrics) -> None:
        """Validate where it is time."""
        del metrics
        if step % self.eval_steps == 0:
            trainer.evaluate()

    def on_epoch_end(self, trainer: SFTTrainer, epoch: int, metrics: Metrics) -> None:
        """Validate, unless the step before was."""
        del epoch, metrics
        if self.eval_on_epoch_end:
            trainer.evaluate()

    def on_evaluate(self, trainer: SFTTrainer, step: int, metrics: Metrics) -> None:
        """Keep the loss, whoever asked for it."""
        del trainer
        loss = metrics.get("val_loss")
        if loss is not None:
            self.val_losses.append((step, loss))
            self.best_val_loss = min(each for _, each in self.val_losses)


class CheckpointCallback(SFTCallback):
    """A loadable copy of the adapter (or model) in `output_dir/checkpoint_step_N` every `save_steps` steps.

    The newest `save_total_limit` of this run stay. `save_best_only` saves where the validation loss is better than at
    every save before, which needs held-out rows: without them every copy is written. To go on after a crash the run
    has its own checkpoints; these are for use.
    """

    def __init__(
        self,
        output_dir: str | Path,
        save_steps: int = 500,
        save_total_limit: int | None = 3,
        save_best_only: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.save_steps = _count("CheckpointCallback", "save_steps", save_steps)
        if save_total_limit is not None:
            _count("CheckpointCallback", "save_total_limit", save_total_limit)
        self.save_total_limit = save_total_limit
        self.save_best_only = save_best_only
        self.best_val_loss = math.inf
        """The validation loss of the best copy; infinite before the first."""

    def on_train_begin(self, trainer: SFTTrainer) -> None:
        """Make the folder, and take up what an earlier part of this run wrote there."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        losses = [mark.get("val_loss") for _, _, mark in self._own(trainer)]
        self.best_val_loss = min((loss for loss in losses if loss is not None), default=math.inf)

    def on_step_end(self, trainer: SFTTrainer, step: int, metrics: Metrics) -> None:
        """Save where it is time and, with `save_best_only`, where the loss is better."""
        if step % self.save_steps:
            return
        loss = trainer.evaluate() if self.save_best_only else metrics.get("val_loss")
        if self.save_best_only and loss is not None and loss >= self.best_val_loss:
            return
        folder = self.output_dir / f"checkpoint_step_{step}"
        trainer.save_model(folder)
        mark = {"run": str(trainer.folder), "step": step, "val_loss": loss}
        (folder / _MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")
        self.best_val_loss = min(self.best_val_loss, math.inf if loss is None else loss)
        if self.save_total_limit is not None:
            written = sorted((at, path) for at, path, _ in self._own(trainer) if at <= step)
            for _, path in written[: -self.save_total_limit]:
                shutil.rmtree(path)

    def _own(self, trainer: SFTTrainer) -> list[tuple[int, Path, dict[str, Any]]]:
        """Step, folder and mark of each copy that this run wrote; others' are left alone."""
        found: list[tuple[int, Path, dict[str, Any]]] = []
        for path in self.output_dir.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is None or not (path / _MARK).is_file():
                continue
            try:
                mark = cast("dict[str, Any]", json.loads((path / _MARK).read_bytes()))
            except ValueError:
                continue
            if mark.get("run") == str(trainer.folder):
                found.append((int(match[1]), path, mark))
        return found


class WandBCallback(SFTCallback):
    """The run's numbers at Weights & Biases, told by a process of its own that cannot hurt the run.

    `config` is shown beside the run's settings; `log_model` sends the adapter or model of the finished run.
    Without a key the run is kept offline; where wandb is not installed, that is said and the run goes on.
    """

    def __init__(
        self,
        project: str = "hone",
        run_name: str | None = None,
        config: Mapping[str, Any] | None = None,
        log_model: bool = False,
    ) -> None:
        self.project = project
        self.run_name = run_name
        try:
            self.config: dict[str, Any] = json.loads(
                json.dumps(dict(config or {}), default=str, allow_nan=False)
            )
        except ValueError:
            raise ConfigError(
                "WandBCallback: config holds a number that is none (NaN or infinity)",
                remedy="leave it out",
            ) from None
        self.log_model = log_model

    def settings(self) -> dict[str, object]:
        """What this asks for, as our settings."""
        return {
            "output.trackers": ["wandb"],
            "output.track.project": self.project,
            "output.track.config": self.config,
            "output.track.log_model": self.log_model,
            **({"output.track.name": self.run_name} if self.run_name else {}),
        }


def _count(owner: str, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{owner}: {name}={value!r} cannot be used",
            remedy="allowed: a whole number, at least 1",
        )
    return value
