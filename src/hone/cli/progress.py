"""How far a run is, as its events tell: rates, what sharing saves, time left. It knows no screen."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from hone.runs.events import Event
from hone.runs.metrics import loss_by_source

_RECENT_STEPS = 20  # steps behind the rates shown


class Progress:
    """Takes events one by one; its attributes are what a screen shows. None: not known yet."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[tuple[int, int, float]] = deque(maxlen=_RECENT_STEPS)
        self._parts: deque[Mapping[str, Any]] = deque(maxlen=_RECENT_STEPS)
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None
        self._tokens = 0
        self._computed = 0
        self.began = clock()
        self.phase = ""
        self.step = 0
        self.steps = 0
        self.loss: float | None = None
        self.held_out_loss: float | None = None
        self.learning_rate: float | None = None
        self.epoch: float | None = None
        self.peak_memory_bytes: int | None = None
        self.utilisation: float | None = None
        self.ranks = 1
        self._busy: deque[tuple[float, float]] = deque(maxlen=_RECENT_STEPS)

    def take(self, event: Event) -> None:
        """Note what one event says."""
        if event.name == "phase":
            self.phase = str(event["name"])
        elif event.name == "resumed":
            self.step = int(event["step"])
        elif event.name == "rehearsed":
            self.steps = int(event.get("steps") or 0)
        elif event.name == "evaluated":
            self.held_out_loss = event["loss"]
        elif event.name == "ranks":
            self.ranks = int(event["ranks"])
        elif event.name == "step":
            self._take_step(event)

    def _take_step(self, event: Event) -> None:
        self.step, self.steps = int(event["step"]), int(event["steps"])
        self.loss, self.learning_rate = event["loss"], event["learning_rate"]
        self.epoch, self.peak_memory_bytes = event["epoch"], event["peak_memory_bytes"]
        self.utilisation = event.get("utilisation")
        self._parts.append(event.fields)
        tokens, trained = int(event["tokens"]), int(event["trained_tokens"])
        self._recent.append((tokens, trained, float(event["seconds"])))
        busy: list[float] = event.get("busy_seconds") or []
        if busy:
            self._busy.append((sum(busy), len(busy) * float(event["seconds"])))
        self._tokens += tokens
        self._computed += int(event["computed_tokens"])
        self._last = (self._clock(), self.step)
        self._first = self._first or self._last

    @property
    def elapsed_seconds(self) -> float:
        """Since this process began to listen."""
        return self._clock() - self.began

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of the rows as given, per second of the recent steps."""
        return self._rate(0)

    @property
    def trained_tokens_per_second(self) -> float | None:
        """The same for the tokens that are trained."""
        return self._rate(1)

    def _rate(self, column: int) -> float | None:
        seconds = sum(entry[2] for entry in self._recent)
        return sum(entry[column] for entry in self._recent) / seconds if seconds > 0 else None

    @property
    def loss_by_source(self) -> dict[str, float]:
        """Mean loss of each source over the recent steps; empty where there is but one."""
        return loss_by_source(self._parts)

    @property
    def busy_share(self) -> float | None:
        """Share of the ranks' time in recent steps that they computed and did not wait, 0 to 1."""
        seconds = sum(entry[1] for entry in self._busy)
        return sum(entry[0] for entry in self._busy) / seconds if seconds > 0 else None

    @property
    def saved_share(self) -> float | None:
        """Share of the rows' tokens that prefix sharing did not have to compute, 0 to 1."""
        return 1 - self._computed / self._tokens if self._tokens else None

    @property
    def eta_seconds(self) -> float | None:
        """Time left for the steps, at the pace so far; evaluations and saves between steps are in it."""
        if self._first is None or self._last is None:
            return None
        begun, first_step = self._first
        now, step = self._last
        if step > first_step:
            pace = (now - begun) / (step - first_step)
        else:
            pace = sum(entry[2] for entry in self._recent) / len(self._recent)
        left = (self.steps - step) * pace - (self._clock() - now)
        return max(0.0, left)
