"""What evaluating and inferring look like while they run: phases, notices and how many answers are written. No verb."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Final

from hone.cli.printable import printable
from hone.cli.screen import paint
from hone.cli.streams import QuietOutput, look_of
from hone.runs.events import Event

_REDRAWN_SECONDS: Final = 0.2
_LINE_SECONDS: Final = 10.0


class JsonFace:
    """Each event as one line of JSON."""

    def __init__(self) -> None:
        self._output = QuietOutput(sys.stdout)

    def take(self, event: Event) -> None:
        """Show one event."""
        told = {"event": event.name, "time": event.time, **event.fields}
        self._output.write_line(json.dumps(told, ensure_ascii=False))


class AnswerFace:
    """Phases and notices on stderr; the count of answers redrawn in place, or a line about every ten seconds."""

    def __init__(self) -> None:
        self._output = QuietOutput(sys.stderr)
        self._look = look_of(sys.stderr, os.environ)
        self._said_at = self._began = time.monotonic()
        self._is_drawn = False

    def take(self, event: Event) -> None:
        """Show one event."""
        match event.name:
            case "phase":
                self._line(str(event["name"]), "phase")
                self._began = self._said_at = time.monotonic()
            case "notice":
                self._line(f"note: {event['message']}", "notice")
            case "answered":
                self._count(event)
            case "failure":
                self._line(f"failed: {event['row']}: {event['reason']}", "notice")
            case _:
                pass

    def close(self) -> None:
        """Leave a clean line."""
        if self._is_drawn:
            self._output.write("\r\x1b[K")
            self._output.flush()
            self._is_drawn = False

    def _count(self, event: Event) -> None:
        now = time.monotonic()
        done, of = int(event["done"]), int(event["of"])
        speed = int(event["tokens"]) / max(1e-9, now - self._began)
        text = f"{done:,} of {of:,} answers, {speed:,.0f} tokens/s"
        wait = _REDRAWN_SECONDS if self._look.live else _LINE_SECONDS
        if done < of and now - self._said_at < wait:
            return
        self._said_at = now
        if self._look.live and done < of:
            self._output.write(f"\r\x1b[K{text}")
            self._output.flush()
            self._is_drawn = True
        else:
            self._line(text, "")

    def _line(self, text: str, kind: str) -> None:
        self.close()
        self._output.write_line(paint(printable(text), kind, self._look))
