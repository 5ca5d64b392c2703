"""The calls of a trainable model for code without an event loop: each returns when it is done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hone.trainable.file import train_sft_from_file
from hone.trainable.settings import TrainSFTConfig
from hone.trainable.trajectory import Trajectory

if TYPE_CHECKING:
    from hone.trainable.backend import Backend, SFTResult
    from hone.trainable.model import TrainableModel

_T = TypeVar("_T")


class Blocking:
    """`model.blocking.train_sft(rows)` does what `await model.train_sft(rows)` does, in a notebook too."""

    def __init__(self, model: TrainableModel) -> None:
        self._model = model

    def register(self, backend: Backend) -> None:
        """As `TrainableModel.register`."""
        run(self._model.register(backend))

    def train_sft(
        self,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig | None = None,
        *,
        verbose: bool = False,
        log_metrics: bool = True,
    ) -> SFTResult:
        """As `TrainableModel.train_sft`."""
        return run(
            self._model.train_sft(trajectories, config, verbose=verbose, log_metrics=log_metrics)
        )

    def train_sft_from_file(self, file_path: str | Path, **settings: Any) -> SFTResult | None:
        """As `train_sft_from_file`."""
        return run(train_sft_from_file(self._model, file_path, **settings))

    def get_step(self) -> int:
        """As `TrainableModel.get_step`."""
        return run(self._model.get_step())

    def log(self, trajectories: Iterable[Trajectory] | None = None, **about: Any) -> None:
        """As `TrainableModel.log`."""
        run(self._model.log(trajectories, **about))

    def delete_checkpoints(self, best_checkpoint_metric: str = "val/reward") -> None:
        """As `TrainableModel.delete_checkpoints`."""
        run(self._model.delete_checkpoints(best_checkpoint_metric))


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine, awaited in a loop of its own; beside a running loop, in a thread of its own."""
    if not _in_a_loop():
        return asyncio.run(work)
    found: list[_T] = []
    faults: list[BaseException] = []

    def go() -> None:
        try:
            found.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            faults.append(error)

    thread = threading.Thread(target=go, name="hone-blocking")
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return found[0]


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
