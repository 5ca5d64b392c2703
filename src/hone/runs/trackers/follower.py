"""Follows a run's events as they are written, and tells a tracker each number once. It knows no library.

The events are on the disk already: a tracker that is slow, absent for a while or killed misses nothing that it
cannot read later, and the run waits for nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from hone.runs.disk import Disk
from hone.runs.events import Event, EventTail
from hone.runs.metrics import metrics_of, tracker_name
from hone.runs.trackers.tracker import Ending, Point, Sample, Tracker

_TOLD: Final = ("step", "evaluated", "sample")
_ENDINGS: Final[Mapping[str, Ending]] = {
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
}
_GOES_ON: Final = ("started", "step")
_AT_ONCE: Final = 200  # events between two entries of what was told


@dataclass
class Told:
    """What a tracker has been told: up to which step, and which events of that step. Steps never go backwards."""

    id: str | None = None
    step: int = -1
    events: set[str] = field(default_factory=set[str])

    @classmethod
    def read(cls, path: Path) -> Told:
        """From its file; nothing where there is none, or one that cannot be read."""
        try:
            found = cast("dict[str, Any]", json.loads(path.read_bytes()))
            return cls(found["id"], int(found["step"]), set(found["events"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def write(self, path: Path) -> None:
        """Keep it, whole or not at all. OSError where the disk refuses."""
        told = {"id": self.id, "step": self.step, "events": sorted(self.events)}
        Disk().replace_file(path, json.dumps(told).encode() + b"\n")

    def admit(self, event: Event) -> bool:
        """Whether an event is new, and then no longer: a step done again after a resume is not."""
        step = int(event["step"])
        if step < self.step or (step == self.step and event.name in self.events):
            return False
        if step > self.step:
            self.step, self.events = step, set()
        self.events.add(event.name)
        return True


class Follower:
    """Passes what is new in `events` on to `tracker`. `told` is kept in `state` before it is told: what is killed in
    between may miss a few numbers, and never has one twice."""

    def __init__(self, events: Path, state: Path, tracker: Tracker, told: Told) -> None:
        self._tail = EventTail(events)
        self._state = state
        self._tracker = tracker
        self._told = told
        self.ending: Ending = "failed"
        """How the run ended, as far as its events say; one that says nothing died."""

    def pass_on(self, alive: Callable[[], object]) -> None:
        """Tell what is new by now; `alive()` is called now and then. Raises what the tracker raises."""
        new: list[Event] = []
        for event in self._tail.new():
            if event.name in _ENDINGS or event.name in _GOES_ON:
                self.ending = _ENDINGS.get(event.name, "failed")
            if event.name in _TOLD and self._told.admit(event):
                new.append(event)
            if len(new) >= _AT_ONCE:
                self._tell(new)
                new = []
                alive()
        if new:
            self._tell(new)

    def _tell(self, events: Sequence[Event]) -> None:
        self._told.write(self._state)
        points: list[Point] = []
        for event in events:
            if event.name != "sample":
                points.append(_point(event))
                continue
            if points:
                self._tracker.log(points)
                points = []
            self._tracker.log_samples(int(event["step"]), event.time, list(_samples(event)))
        if points:
            self._tracker.log(points)


def _point(event: Event) -> Point:
    metrics = metrics_of(event.name, event.fields)
    named = {tracker_name(name): value for name, value in metrics.items()}
    return Point(int(event["step"]), event.time, named)


def _samples(event: Event) -> Iterator[Sample]:
    for one in cast("list[dict[str, Any]]", event["samples"]):
        yield Sample(one["name"], one["prompt"], one["reply"], one["wanted"])
