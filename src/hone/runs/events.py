"""The events of a run: one JSON object per line, appended and never changed. It knows no screen.

Every line holds `event`, `time` (unix seconds) and the event's own fields. A line is written by one call and
is in the system's hands when `say` returns, so a process that dies loses none; those that matter after a power
failure are pushed to the disk as well. JSON has no NaN: such a number becomes null, and `not_finite` names it.
"""

from __future__ import annotations

import errno
import json
import math
import numbers
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from hone.errors import DiskError, Stopped

_DURABLE = frozenset({"saved", "evaluated", "halved", "stopped", "failed", "finished"})
_BLOCK_BYTES = 1 << 16


class Say(Protocol):
    """Something happened: `say("step", step=3, loss=1.2)`."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Tell everyone who listens."""
        ...


@dataclass(frozen=True)
class Event:
    """One thing that happened, as it stands in the file."""

    name: str
    time: float
    fields: Mapping[str, Any]

    def __getitem__(self, field: str) -> Any:
        return self.fields[field]

    def get(self, field: str, default: Any = None) -> Any:
        """A field, or `default` where the event has none of that name."""
        return self.fields.get(field, default)


Listener = Callable[[Event], None]


class EventLog:
    """Writes events to a file and passes them on to listeners; `say` is what the other rooms get.

    A listener that raises is dropped with one `notice`: no screen can stop a run.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._listeners: list[Listener] = []
        self._turn = threading.RLock()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags, 0o666)
            _cut_torn_line(self._descriptor)
        except OSError as error:
            raise self._error(error) from error

    def listen(self, listener: Listener) -> None:
        """Have `listener(event)` called after each event is written."""
        self._listeners.append(listener)

    def say(self, event: str, /, **fields: object) -> None:
        """Write an event and pass it on. Raises DiskError where it cannot be written."""
        if "event" in fields or "time" in fields:
            raise ValueError("`event` and `time` are set by the log")
        with self._turn:
            told = Event(name=event, time=self._clock(), fields=_plain_fields(fields))
            self._append(told)
            for listener in tuple(self._listeners):
                self._pass_on(told, listener)

    def close(self) -> None:
        """Push everything to the disk and close the file."""
        with self._turn:
            if self._descriptor >= 0:
                os.fsync(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = -1

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, event: Event) -> None:
        record = {"event": event.name, "time": event.time, **event.fields}
        line = (json.dumps(record, allow_nan=False) + "\n").encode("ascii")
        before = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) != len(line):
                os.ftruncate(self._descriptor, before)  # leave no half line
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if event.name in _DURABLE:
                os.fsync(self._descriptor)
        except OSError as error:
            raise self._error(error) from error

    def _pass_on(self, event: Event, listener: Listener) -> None:
        try:
            listener(event)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001  a screen's fault of any kind must not stop the run
            self._listeners.remove(listener)
            self.say(
                "notice",
                code="listener-dropped",
                message=f"a display failed and gets no more events ({type(error).__name__}: {error}); "
                "the run goes on",
            )

    def _error(self, error: OSError) -> DiskError:
        return DiskError(
            f"cannot write the run's events: {error.strerror or error}",
            where=str(self.path),
            remedy="free some space or make the folder writable, then run the same command again",
        )


def read_events(path: Path) -> Iterator[Event]:
    """All complete events of a file that may be growing; a last line without its end is left for later.

    A line that cannot be read (a damaged disk) comes as a `notice` with code `unreadable-event`. A missing
    file holds no events.
    """
    if not path.exists():
        return
    last_time = 0.0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            event = _parse(line)
            if event is None:
                message = f"{path.name} line {number} cannot be read"
                fields = {"code": "unreadable-event", "message": message}
                event = Event(name="notice", time=last_time, fields=fields)
            last_time = event.time
            yield event


class EventTail:
    """Reads a growing file of events piece by piece, each complete line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0  # bytes read

    def new(self) -> Iterator[Event]:
        """The events since the last call; lines that cannot be read are left out."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                event = _parse(line)
                if event is not None:
                    yield event


def steps(path: Path) -> dict[int, Event]:
    """The last logged `step` event of each step number, ascending: a step redone after a resume counts once."""
    found = {int(event["step"]): event for event in read_events(path) if event.name == "step"}
    return dict(sorted(found.items()))


def _parse(line: bytes) -> Event | None:
    try:
        parsed: object = json.loads(line)
    except ValueError:
        return None
    if not isinstance(parsed, dict):
        return None
    record = cast("dict[str, Any]", parsed)
    name, at = record.pop("event", None), record.pop("time", None)
    if not isinstance(name, str) or not isinstance(at, int | float):
        return None
    return Event(name=name, time=float(at), fields=record)


def _cut_torn_line(descriptor: int) -> None:
    """Cut off what follows the last line end: a line that a killed process did not finish."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    if end != size:
        os.ftruncate(descriptor, end)


def _plain_fields(fields: Mapping[str, object]) -> dict[str, Any]:
    """Fields as JSON can hold them; `not_finite` maps the place of each lost number to its text."""
    lost: dict[str, str] = {}
    plain = {name: _plain(value, name, lost) for name, value in fields.items()}
    return {**plain, "not_finite": lost} if lost else plain


def _plain(value: object, place: str, lost: dict[str, str]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isfinite(number):
            return number
        lost[place] = repr(number)
        return None
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value)
        return {str(key): _plain(item, f"{place}.{key}", lost) for key, item in entries.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        items = cast("Sequence[object]", value)
        return [_plain(item, f"{place}.{i}", lost) for i, item in enumerate(items)]
    return str(value)
