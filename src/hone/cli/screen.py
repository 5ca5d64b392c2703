"""The faces of a run in a terminal, a pipe, or a program: a listener for each. It knows only events.

    with open_screen(as_json=False, quiet=False) as screen:
        train(..., listeners=[screen])

A terminal gets a display that is redrawn in place, with notices scrolling above it; anything else gets plain lines;
`as_json` gets each event as one JSON line. A reader that goes away silences the screen and never the run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, cast

from hone.cli.lines import (
    PHASES,
    by_source_text,
    describe,
    duration_text,
    figures,
    step_line,
    time_left,
)
from hone.cli.progress import Progress
from hone.cli.streams import Look, QuietOutput, look_of
from hone.runs.events import Event

Screen = Callable[[Event], None]

_LINE_SECONDS = 10.0  # between plain lines about steps
_LINES_A_RUN = 10  # and at least about so many of them
_REDRAWS_A_SECOND = 4
_BAR_CELLS = 24
_ALWAYS = {"notice", "data", "halved", "stopped", "finished", "resumed"}
_DIMMED = {"phase", "saved", "started", "rehearsed", "measured", "tracking"}
_YELLOW, _DIM, _PLAIN = "\x1b[33m", "\x1b[2m", "\x1b[0m"


@contextmanager
def open_screen(
    *,
    as_json: bool,
    quiet: bool,
    stream: TextIO | None = None,
    environment: Mapping[str, str] | None = None,
) -> Generator[Screen]:
    """The listener that fits the output, until the block ends."""
    output = QuietOutput(stream or sys.stdout)
    look = look_of(output.stream, os.environ if environment is None else environment)
    if as_json:
        yield JsonScreen(output).take
    elif look.live and not quiet:
        with LiveScreen(output, look).shown() as screen:
            yield screen.take
    else:
        yield PlainScreen(output, look, quiet=quiet).take


class JsonScreen:
    """Each event as one line of JSON, as it stands in the run's log."""

    def __init__(self, output: QuietOutput) -> None:
        self.output = output

    def take(self, event: Event) -> None:
        """Show one event."""
        self.output.write_line(
            json.dumps({"event": event.name, "time": event.time, **event.fields})
        )


class PlainScreen:
    """A line for whatever happens, and about every ten seconds one for the steps."""

    def __init__(
        self,
        output: QuietOutput,
        look: Look,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.output = output
        self.look = look
        self.quiet = quiet
        self.progress = Progress(clock=clock)
        self._clock = clock
        self._said_step = 0
        self._said_at = float("-inf")

    def take(self, event: Event) -> None:
        """Show one event."""
        self.progress.take(event)
        if event.name == "step":
            if not self.quiet and self._is_due():
                self._said_step, self._said_at = self.progress.step, self._clock()
                self.output.write_line(step_line(self.progress))
            return
        text = describe(event)
        if text is not None and (not self.quiet or event.name in _ALWAYS):
            self.output.write_line(paint(text, event.name, self.look))

    def _is_due(self) -> bool:
        step, steps = self.progress.step, self.progress.steps
        if self._said_step == 0 or step >= steps:
            return True
        tenth = step * _LINES_A_RUN // steps > self._said_step * _LINES_A_RUN // steps
        return tenth or self._clock() - self._said_at >= _LINE_SECONDS


class LiveScreen:
    """Two lines redrawn in place, and above them what a reader may want to scroll back to."""

    def __init__(self, output: QuietOutput, look: Look) -> None:
        from rich.console import Console
        from rich.live import Live

        self.output = output
        self.look = look
        self.progress = Progress()
        self._console = Console(
            file=cast(Any, _Forgiving(output)),
            force_terminal=True,
            no_color=not look.colour,
            color_system="auto" if look.colour else None,
            highlight=False,
            soft_wrap=True,
        )
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=_REDRAWS_A_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @contextmanager
    def shown(self) -> Generator[LiveScreen]:
        """The display, until the block ends; then only what scrolled above it stays."""
        with self._live:
            yield self

    def take(self, event: Event) -> None:
        """Show one event."""
        self.progress.take(event)
        text = describe(event)
        if event.name == "phase":
            self._live.refresh()  # what follows may keep the redrawing thread waiting
        elif text is not None and event.name != "step":
            from rich.text import Text

            self._console.print(Text.from_ansi(paint(text, event.name, self.look)))
        if event.name == "step" and self.progress.step == self.progress.steps:
            self._console.print(step_line(self.progress), markup=False)

    def _draw(self) -> Any:
        from rich.text import Text

        here = self.progress
        phase = PHASES.get(here.phase, here.phase) or "starting"
        parts = [phase]
        if here.steps:
            done = here.step * _BAR_CELLS // here.steps
            full, empty = ("━", "─") if "utf" in self._console.encoding else ("#", "-")
            bar = full * done + empty * (_BAR_CELLS - done)
            parts.append(f"{bar} {here.step}/{here.steps} ({here.step / here.steps:.0%})")
        parts += [duration_text(here.elapsed_seconds), *time_left(here)]
        text = Text("  ".join(parts), no_wrap=True, overflow="ellipsis")
        text.append("\n" + "  ".join(figures(here)), style="dim")
        if by_source := by_source_text(here.loss_by_source):
            text.append(f"\nby source  {by_source}", style="dim")
        return text


class _Forgiving:
    """The file behind the live display: it passes text on until the reader is gone."""

    def __init__(self, output: QuietOutput) -> None:
        self._output = output
        self.encoding = output.stream.encoding

    def write(self, text: str) -> int:
        self._output.write(text)
        return len(text)

    def flush(self) -> None:
        self._output.flush()

    def isatty(self) -> bool:
        return self._output.stream.isatty()

    def fileno(self) -> int:
        return self._output.stream.fileno()


def paint(text: str, event: str, look: Look) -> str:
    """Colour a line by the kind of its event, where colour may be."""
    if not look.colour:
        return text
    if event in ("notice", "halved", "stopped"):
        return f"{_YELLOW}{text}{_PLAIN}"
    return f"{_DIM}{text}{_PLAIN}" if event in _DIMMED else text
