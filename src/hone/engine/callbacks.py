"""Callbacks: code of a user's own, called at set moments of training. It knows no rows and no screens.

    class Stop(Callback):
        def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
            if metrics["loss"] < 0.1:
                run.stop("the loss is low enough")

Steps and epochs count from 1. Every hook runs between two steps, when weights, optimizer and counts agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from hone.errors import CallbackError, ConfigError, HoneError

Metrics = Mapping[str, float]
"""Numbers by name, as `hone.runs.metrics` names them: `loss`, `grad_norm`, `eval_loss`, `loss/<source>` and so on."""


class Training:
    """The run as a callback sees it, and what it may ask of it."""

    def __init__(
        self,
        *,
        steps: int,
        steps_per_epoch: int,
        model: nn.Module,
        evaluate: Callable[[], float | None],
        alone: bool = True,
    ) -> None:
        self.steps = steps
        """Steps in all."""
        self.steps_per_epoch = steps_per_epoch
        """Steps in one pass over the rows."""
        self.model = model
        """The model with its present weights: to look at and to save, not to change."""
        self.step = 0
        """Finished steps."""
        self.metrics: dict[str, float] = {}
        """The newest of each metric."""
        self.stop_reason: str | None = None
        self.save_wanted = False
        self.fault: HoneError | None = None
        """What an evaluation that a callback asked for raised: no fault of the callback."""
        self._evaluate = evaluate
        self._alone = alone

    @property
    def epoch(self) -> float:
        """Passes over the rows so far."""
        return self.step / self.steps_per_epoch

    def stop(self, reason: str = "a callback asked for it") -> None:
        """End training after this step: saved, with its artifact, as after the last step."""
        self._refuse_for_others("stop")
        self.stop_reason = reason

    def save(self) -> None:
        """Write a checkpoint after this step."""
        self._refuse_for_others("save")
        self.save_wanted = True

    def evaluate(self) -> float | None:
        """The loss on the held-out rows now; once a step. None without held-out rows, or where a stop was asked for."""
        self._refuse_for_others("evaluate")
        try:
            return self._evaluate()
        except HoneError as error:
            self.fault = error
            raise

    def _refuse_for_others(self, wish: str) -> None:
        """Only the first of several ranks calls callbacks: what all must do together cannot be asked there."""
        if not self._alone:
            raise CallbackError(
                f"a callback asked to {wish}, and the run has several ranks, of which only the first has callbacks",
                remedy="set compute.nproc=1, or let the callback only look on",
            )


class Callback:
    """Override what you need. What a hook raises ends the run: saved, named, exit code 1.

    The numbers of training do not depend on hooks, as long as they leave weights and torch's generator alone;
    the model is put back into training mode after each.
    """

    def on_train_begin(self, run: Training) -> None:
        """Before the first step of this process; `run.step` is above 0 where it resumes."""

    def on_epoch_begin(self, run: Training, epoch: int) -> None:
        """Before the first step of a pass, and before the first after a resume within one."""

    def on_step_begin(self, run: Training, step: int) -> None:
        """Before a step."""

    def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
        """After a step, its evaluation included where one was due (`eval_loss`), before its checkpoint."""

    def on_log(self, run: Training, step: int, metrics: Metrics) -> None:
        """Whenever numbers are told: after a step those of the step, after an evaluation those of it."""

    def on_evaluate(self, run: Training, step: int, metrics: Metrics) -> None:
        """After an evaluation on the held-out rows."""

    def on_save(self, run: Training, step: int, path: str) -> None:
        """After a checkpoint is complete at `path`."""

    def on_epoch_end(self, run: Training, epoch: int, metrics: Metrics) -> None:
        """After the last step of a pass, or of training within one; with the newest of each metric."""

    def on_train_end(self, run: Training, metrics: Metrics) -> None:
        """After the last step and its checkpoint; not where the run was interrupted or failed."""


class Callbacks:
    """All callbacks of a run, called in their order; keeps what step and epoch are open."""

    def __init__(
        self, callbacks: Sequence[Callback], run: Training, *, restore: Callable[[], object]
    ) -> None:
        """`restore()` puts the model back into training mode. Raises ConfigError for what is no Callback."""
        check_callbacks(callbacks)
        self.run = run
        self._callbacks = tuple(callbacks)
        self._restore = restore
        self._epoch: int | None = None
        self._of_step: dict[str, float] = {}
        self._in_step = False
        self._failed = False

    def begin_training(self, step: int) -> None:
        """`step` steps are finished."""
        self.run.step = step
        self._fire("on_train_begin")

    def begin_step(self) -> None:
        """The next step follows, and with it perhaps an epoch."""
        step = self.run.step + 1
        epoch = (step - 1) // self.run.steps_per_epoch + 1
        if epoch != self._epoch:
            self._epoch = epoch
            self._fire("on_epoch_begin", epoch)
        self._fire("on_step_begin", step)
        self._in_step = True

    def stepped(self, metrics: Metrics) -> None:
        """A step moved the weights, or was passed over (then without metrics)."""
        self.run.step += 1
        self._of_step = {}
        if metrics:
            self._tell(metrics)

    def evaluated(self, metrics: Metrics) -> None:
        """The held-out rows were evaluated."""
        self._tell(metrics)
        self._fire("on_evaluate", self.run.step, dict(metrics))

    def end_step(self, *, is_last: bool) -> None:
        """The step that was begun, if any, is over; with the last one, or the last of its epoch, so is that."""
        if not self._in_step:
            return
        self._in_step = False
        self._fire("on_step_end", self.run.step, dict(self._of_step))
        is_last = is_last or self.run.stop_reason is not None
        if self._epoch is not None and (is_last or self.run.step % self.run.steps_per_epoch == 0):
            epoch, self._epoch = self._epoch, None
            self._fire("on_epoch_end", epoch, dict(self.run.metrics))

    def saved(self, path: str) -> None:
        """A checkpoint is complete."""
        self.run.save_wanted = False
        self._fire("on_save", self.run.step, path)

    def end_training(self) -> None:
        """All steps are done."""
        self._fire("on_train_end", dict(self.run.metrics))

    def _tell(self, metrics: Metrics) -> None:
        self.run.metrics.update(metrics)
        self._of_step.update(metrics)
        self._fire("on_log", self.run.step, dict(metrics))

    def _fire(self, hook: str, *arguments: Any) -> None:
        if self._failed:  # the run is being put away: nothing more is called
            return
        for callback in self._callbacks:
            call = getattr(callback, hook)
            if getattr(call, "__func__", None) is getattr(Callback, hook):  # not overridden
                continue
            try:
                call(self.run, *arguments)
            except Exception as error:
                if error is self.run.fault or isinstance(error, CallbackError):
                    raise
                self._failed = True
                raise _failure(callback, hook, self.run.step, error) from error
            finally:
                self._restore()


def check_callbacks(callbacks: Sequence[object]) -> None:
    """Raise ConfigError for what is no Callback."""
    for one in callbacks:
        if not isinstance(one, Callback):
            raise ConfigError(
                f"callbacks: {one!r} is no callback",
                remedy="derive its class from hone.engine.callbacks.Callback, and give an instance of it",
            )


def _failure(callback: Callback, hook: str, step: int, error: Exception) -> CallbackError:
    return CallbackError(
        f"the callback {type(callback).__name__} failed in {hook} after step {step}: "
        f"{type(error).__name__}: {error}",
        remedy="mend the callback; the same call resumes after this step",
    )
