"""What a watched job looks like: messages line by line, steps on one line that moves. It knows no service."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from hone.cli.printable import printable
from hone.cli.streams import QuietOutput


def event_line(event: Mapping[str, Any]) -> str:
    """`14:03:59 warn  message`."""
    at = time.strftime("%H:%M:%S", time.localtime(float(event.get("created_at") or 0)))
    level = str(event.get("level") or "info")
    return printable(f"{at} {level:<5} {event.get('message')}")


class JobScreen:
    """Shows the events of one job as they come. Where nobody looks, a step is shown at each tenth of them."""

    def __init__(self, *, as_json: bool, stream: TextIO | None = None) -> None:
        self._as_json = as_json
        self._out = QuietOutput(stream or sys.stdout)
        self._is_live = not as_json and self._out.stream.isatty()
        self._tenth = -1
        self._is_open = False

    def show(self, event: Mapping[str, Any]) -> None:
        """One event."""
        if self._as_json:
            self._out.write_line(json.dumps(event))
            return
        data = event.get("data")
        if event.get("type") == "metrics" and isinstance(data, Mapping):
            self._step(event, data)  # pyright: ignore[reportUnknownArgumentType] - JSON of the wire
            return
        self.end()
        self._out.write_line(event_line(event))

    def finish(self, job: Mapping[str, Any]) -> None:
        """The job has ended."""
        self.end()
        if self._as_json:
            self._out.write_line(json.dumps(job))
            return
        tuned = job.get("fine_tuned_model")
        about = [f"{job.get('status')}"]
        if job.get("trained_tokens"):
            about.append(f"{int(job['trained_tokens']):,} tokens trained")
        if tuned:
            about.append(f"it answers as {tuned}")
        self._out.write_line(printable(", ".join(about)))

    def end(self) -> None:
        """Leave the line that moves."""
        if self._is_open:
            self._out.write_line("")
            self._is_open = False

    def _step(self, event: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        line = event_line(event)
        if self._is_live:
            self._out.write(f"\r\x1b[K{line}")
            self._out.flush()
            self._is_open = True
            return
        step, total = data.get("step"), data.get("total_steps")
        tenth = -1
        if isinstance(step, int) and isinstance(total, int) and total > 0:
            tenth = step * 10 // total
        if tenth == self._tenth and tenth >= 0:
            return
        self._tenth = tenth
        self._out.write_line(line)
