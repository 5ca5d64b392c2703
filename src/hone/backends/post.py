"""What a rank tells its launcher: its events, and how it ended. Lines of JSON over a pipe, never a pickle."""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Mapping
from typing import Any

from hone import errors
from hone.errors import HoneError, Interrupted, OutOfMemory
from hone.runs.events import Event

Message = dict[str, Any]


class Post:
    """The rank's side of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._turn = threading.Lock()

    def event(self, event: Event) -> None:
        """Pass on an event of the run."""
        self.send({"event": event.name, "time": event.time, "fields": dict(event.fields)})

    def done(self, result: Mapping[str, Any]) -> None:
        """This rank has come to the end of the run."""
        self.send({"done": dict(result)})

    def fault(self, message: Message) -> None:
        """This rank ends with an error, as `fault_message` makes it."""
        self.send({"fault": message})

    def send(self, message: Message) -> None:
        """One line."""
        line = json.dumps(message, default=str).encode() + b"\n"
        with self._turn:
            while line:
                line = line[os.write(self._descriptor, line) :]


def fault_message(error: BaseException) -> Message:
    """An error as JSON holds it; `kind` is None where it is none of ours."""
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted("interrupted; work since the last checkpoint is not saved")
    if isinstance(error, HoneError):
        message: Message = {"kind": type(error).__name__, "what": error.what}
        message |= {"where": error.where, "remedy": error.remedy}
        if isinstance(error, OutOfMemory) and error.smaller is not None:
            message["smaller"] = list(error.smaller)
        return message
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return fault_message(
            OutOfMemory(
                f"memory ran out: {str(error).partition(chr(10))[0] or 'on this machine'}",
                remedy="use a smaller model, or free memory on this machine",
            )
        )
    what = f"{type(error).__name__}: {error}"
    return {"kind": None, "what": what, "trace": "".join(traceback.format_exception(error))}


def error_of(message: Message) -> HoneError:
    """The error that a rank of ours raised."""
    kind: type[HoneError] = getattr(errors, str(message["kind"]), HoneError)
    error = kind(message["what"], where=message["where"], remedy=message["remedy"])
    if isinstance(error, OutOfMemory) and message.get("smaller"):
        first, tokens = message["smaller"]
        error.smaller = (int(first), int(tokens))
    return error


def event_of(message: Message) -> Event:
    """The event that a rank told."""
    return Event(name=message["event"], time=float(message["time"]), fields=message["fields"])


class Lines:
    """Whole lines of a pipe that may bring half a line at a time."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> list[Message]:
        """The messages that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines if line]
