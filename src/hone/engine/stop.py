"""A request to stop: the first signal asks, the second insists. It knows no checkpoint.

Ctrl-C is a person; SIGTERM, SIGHUP (the terminal went) and SIGUSR1 (a cluster's warning before it takes the machine
back) are the machine's ways to say that time is short.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType

from hone.engine.ranks import Ranks
from hone.errors import Interrupted, Stopped, Terminated

ShouldStop = Callable[[], Stopped | None]
_ALWAYS = (signal.SIGINT, signal.SIGTERM)
_UNLESS_TAKEN = (signal.SIGHUP, signal.SIGUSR1)  # nohup ignores the one; others may use the other


class StopRequest:
    """Listens for Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 while it is open, and answers `None` or the exception to raise.

    SIGHUP and SIGUSR1 only where nobody ignores or handles them already.

    Inside `at_step_boundaries()` the first signal only takes note: the step is finished and saved, then
    the loop raises the answer. Elsewhere, and for any second signal, work ends at once: KeyboardInterrupt
    unwinds it, and leaving the `with` turns that into Interrupted (130) or Terminated (143).
    Only for the main thread: Python delivers signals there.
    """

    def __init__(self, resume_command: str) -> None:
        self._resume_command = resume_command
        self._received: signal.Signals | None = None
        self._patient = False
        self._before: dict[signal.Signals, object] = {}

    def __call__(self) -> Stopped | None:
        """What to raise once the work is saved; None where nobody asked."""
        if self._received is None:
            return None
        return _stopped(
            self._received, saved="saved", remedy=f"continue with: {self._resume_command}"
        )

    def __enter__(self) -> StopRequest:
        free = [n for n in _UNLESS_TAKEN if signal.getsignal(n) == signal.SIG_DFL]
        for number in (*_ALWAYS, *free):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        if isinstance(error, KeyboardInterrupt) and self._received is not None:
            raise _stopped(
                self._received,
                saved="work since the last checkpoint is not saved",
                remedy=f"continue from there with: {self._resume_command}",
            ) from None

    @contextmanager
    def at_step_boundaries(self) -> Generator[None]:
        """While this is open, the first signal waits for the end of the step."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        insists = self._received is not None
        self._received = signal.Signals(number)
        if insists or not self._patient:
            raise KeyboardInterrupt


def never() -> Stopped | None:
    """Nobody asks to stop."""
    return None


def agreed(asked: Stopped | None, ranks: Ranks) -> Stopped | None:
    """What any rank was asked, on every rank: all stop after the same step, or none does."""
    if ranks.is_alone:
        return asked
    mine = 0 if asked is None else int(signal.Signals[asked.signal_name])
    number = int(ranks.most(mine))
    if number in (0, mine):
        return asked
    return _stopped(signal.Signals(number), saved="saved", remedy="the same command resumes")


def _stopped(number: signal.Signals, *, saved: str, remedy: str) -> Stopped:
    if number == signal.SIGINT:
        return Interrupted(f"interrupted; {saved}", remedy=remedy)
    by = "" if number == signal.SIGTERM else f" by {number.name}"
    stopped = Terminated(f"terminated{by}; {saved}", remedy=remedy)
    stopped.signal_name = number.name
    return stopped
