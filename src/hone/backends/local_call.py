"""What a call of training tells: to the model's history, to standard error where it is asked for, and to the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from hone.trainable.folder import ModelFolder
from hone.trainable.history import CallRows, append
from hone.trainable.progress import Progress

logger = logging.getLogger("hone")

_WARNED: Final = frozenset({"checkpoint-skipped", "no-optimizer-state", "nothing-left", "model"})
_SECONDS_PER_HOUR: Final = 3600.0


class CallListener:
    """Hears the events of one call, one by one."""

    def __init__(
        self,
        folder: ModelFolder,
        *,
        verbose: bool,
        log_metrics: bool,
        dollars_an_hour: float | None,
        told: set[str],
    ) -> None:
        """`told` are the notices of the model's earlier calls: each is told once."""
        self._told = told
        self._folder = folder
        self._verbose = verbose
        self._log_metrics = log_metrics
        self._dollars_an_hour = dollars_an_hour
        self._on_gpu = False
        self._first = 0
        self._progress: Progress | None = None
        state = folder.read_state()
        self._rows = CallRows((folder.latest() or 0) + 1, state.get("totals") or {})

    def hear(self, message: Mapping[str, Any]) -> None:
        """One event."""
        event = message["event"]
        if event == "call":
            self._begin(message)
        elif event == "step":
            self._step(message)
        elif event == "engine":
            self._on_gpu = message["device"] != "CPU"
        elif event == "notice" and message["message"] not in self._told:
            self._told.add(message["message"])
            self._tell(message["message"], warn=message.get("code") in _WARNED)
        elif event == "data" and message["dropped"]:
            self._tell(str(message["summary"]), warn=True)

    def end(self) -> None:
        """The call is over, well or not."""
        if self._progress is not None:
            self._progress.end()

    def finish(self, done: Mapping[str, Any], *, seconds: float) -> None:
        """The call has trained: its own row, and the totals."""
        if not done["steps"]:
            return
        dollars = None
        if self._dollars_an_hour is not None:
            if self._on_gpu:
                dollars = seconds / _SECONDS_PER_HOUR * self._dollars_an_hour
            else:
                logger.info("gpu_cost_per_hour_usd: not applicable here: no GPU trained")
        if self._log_metrics and self._rows.any:
            append(self._folder.history, [self._rows.of_call(seconds=seconds, dollars=dollars)])
        self._folder.write_state(
            {
                "training_step": done["step"],
                "gradient_steps": done["gradient_steps"],
                "totals": self._rows.after(),
            }
        )

    def _begin(self, message: Mapping[str, Any]) -> None:
        self._first = int(message["first"])
        counts = [(int(given), int(dropped)) for given, dropped in message["counts"]]
        self._rows.begin(counts, done=int(message["done"]), tokens=int(message["tokens_done"]))
        if self._verbose:
            self._progress = Progress(len(counts))

    def _step(self, message: Mapping[str, Any]) -> None:
        number = int(message["step"]) - self._first
        row = self._rows.of_step(message, gradient_step=number)
        if self._log_metrics:
            append(self._folder.history, [row])
        if self._progress is not None:
            self._progress.step(number, message, self._rows.dropped)

    def _tell(self, text: str, *, warn: bool) -> None:
        if self._progress is not None:
            self._progress.notice(text)
        elif warn:
            logger.warning("%s", text)
        elif self._verbose:
            Progress(1).notice(text)
        else:
            logger.info("%s", text)
