"""Says a run's events: to the listeners at once, and to the run's log as soon as there is one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from hone.runs.events import Event, EventLog, Listener


class Herald:
    """Says events: to the listeners at once, and to the run's log as soon as there is one."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._early: list[tuple[str, dict[str, Any]]] = []
        self._log: EventLog | None = None
        self.phase = ""
        """The phase that began last."""

    def say(self, event: str, /, **fields: object) -> None:
        """Say one event."""
        if event == "phase":
            self.phase = str(fields["name"])
        if self._log is not None:
            self._log.say(event, **fields)
            return
        self._early.append((event, dict(fields)))
        for listener in self._listeners:
            listener(Event(name=event, time=time.time(), fields=dict(fields)))

    def attach(self, log: EventLog) -> None:
        """Write what was said so far, and from now on everything."""
        for event, fields in self._early:
            log.say(event, **fields)
        for listener in self._listeners:
            log.listen(listener)
        self._log = log


class Silent(Herald):
    """Says nothing: the first rank speaks for all."""

    def __init__(self) -> None:
        super().__init__(())

    def say(self, event: str, /, **fields: object) -> None:
        """Nothing; what the rank is doing is kept."""
        if event == "phase":
            self.phase = str(fields["name"])
