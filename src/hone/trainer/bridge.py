"""From the engine's callbacks to an `SFTTrainer`'s: the same moments, with the trainer as what is asked of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from hone.engine.callbacks import Callback, Metrics, Training
from hone.trainer.callbacks import SFTCallback

if TYPE_CHECKING:
    from hone.trainer.sft import SFTTrainer


class Watch(Callback):
    """Called first: gives the trainer the run, and remembers which step was evaluated."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self._trainer = trainer
        self.evaluated: tuple[int, float | None] = (-1, None)

    def on_train_begin(self, run: Training) -> None:
        """Let the trainer ask things of the run."""
        self._trainer.run = run

    def on_evaluate(self, run: Training, step: int, metrics: Metrics) -> None:
        """Keep what was measured."""
        del run
        self.evaluated = (step, metrics.get("eval_loss"))

    def told(self, metrics: Metrics, step: int) -> dict[str, float]:
        """Metrics of `step` with the held-out loss, where it was taken by now, under both of its names."""
        found = dict(metrics)
        at, loss = self.evaluated
        if at == step and loss is not None:
            found["eval_loss"] = loss
        if "eval_loss" in found:
            found["val_loss"] = found["eval_loss"]
        return found


def bridges(trainer: SFTTrainer, callbacks: Sequence[SFTCallback | Callback]) -> list[Callback]:
    """The engine's callbacks for a trainer's, in their order; those that are the engine's own stay as they are."""
    watch = Watch(trainer)
    return [
        watch,
        *(one if isinstance(one, Callback) else _bridge(trainer, watch, one) for one in callbacks),
    ]


class Bridge(Callback):
    """Calls one callback of a trainer at the engine's moments."""

    def __init__(self, trainer: SFTTrainer, watch: Watch, callback: SFTCallback) -> None:
        self._trainer, self._watch, self._callback = trainer, watch, callback

    def on_train_begin(self, run: Training) -> None:
        """Before the first step."""
        del run
        self._callback.on_train_begin(self._trainer)

    def on_train_end(self, run: Training, metrics: Metrics) -> None:
        """After the last one."""
        del run, metrics
        self._callback.on_train_end(self._trainer)

    def on_epoch_begin(self, run: Training, epoch: int) -> None:
        """Before a pass over the rows."""
        del run
        self._callback.on_epoch_begin(self._trainer, epoch)

    def on_epoch_end(self, run: Training, epoch: int, metrics: Metrics) -> None:
        """After it, with what another callback has measured since."""
        del metrics
        told = self._watch.told(run.metrics, run.step)
        self._callback.on_epoch_end(self._trainer, epoch, told)

    def on_step_begin(self, run: Training, step: int) -> None:
        """Before a step."""
        del run
        self._callback.on_step_begin(self._trainer, step)

    def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
        """After it."""
        del run
        self._callback.on_step_end(self._trainer, step, self._watch.told(metrics, step))

    def on_evaluate(self, run: Training, step: int, metrics: Metrics) -> None:
        """After the held-out rows."""
        del run
        self._callback.on_evaluate(self._trainer, step, self._watch.told(metrics, step))

    def on_save(self, run: Training, step: int, path: str) -> None:
        """After a checkpoint."""
        del run
        self._callback.on_save(self._trainer, step, path)


_HOOKS: Final = (
    "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_step_begin", "on_step_end", "on_evaluate",
    "on_save",
)  # fmt: skip


def _bridge(trainer: SFTTrainer, watch: Watch, callback: SFTCallback) -> Callback:
    """A Bridge that has the name of the user's class, for messages, and only the hooks that it overrides."""
    kind = type(callback)
    idle = {
        name: getattr(Callback, name)
        for name in _HOOKS
        if getattr(kind, name) is getattr(SFTCallback, name)
    }
    made = cast("type[Bridge]", type(kind.__name__, (Bridge,), idle))
    return made(trainer, watch, callback)
