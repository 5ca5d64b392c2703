"""What the output can show, and an output that dies quietly. It knows no event and no verb."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

_DUMB = {"dumb", "unknown"}


@dataclass(frozen=True)
class Look:
    """Whether text may be coloured, and whether it may be redrawn in place."""

    colour: bool
    live: bool


def look_of(stream: TextIO, environment: Mapping[str, str]) -> Look:
    """What `stream` can show.

    NO_COLOR (any value) forbids colour, FORCE_COLOR (any but 0) asks for it without a terminal, TERM=dumb
    and CI forbid redrawing. See no-color.org and force-color.org.
    """
    is_terminal = stream.isatty()
    dumb = environment.get("TERM", "").lower() in _DUMB
    forced = environment.get("FORCE_COLOR", "") not in ("", "0")
    colour = not environment.get("NO_COLOR") and (forced or (is_terminal and not dumb))
    return Look(colour=colour, live=is_terminal and not dumb and not environment.get("CI"))


def silence(stream: TextIO) -> None:
    """Point a stream at nothing, so that later writes, and the flush at exit, do not fail."""
    try:
        target = stream.fileno()
    except (OSError, ValueError):  # not a real file: nothing to point elsewhere
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, target)
    os.close(null)


class QuietOutput:
    """Writes lines until the reader is gone, then nothing: no screen stops a run by dying."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.is_gone = False

    def write_line(self, text: str) -> None:
        """Write one line and push it out."""
        self.write(text + "\n")
        self.flush()

    def write(self, text: str) -> None:
        """Write text as it is."""
        self._try(lambda: self.stream.write(text))

    def flush(self) -> None:
        """Push out what was written."""
        self._try(self.stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        if self.is_gone:
            return
        try:
            action()
        except (OSError, ValueError):  # ValueError: the stream was closed
            self.is_gone = True
            silence(self.stream)
