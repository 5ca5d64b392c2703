"""The lines that a call of training writes to standard error when it is asked to (`verbose=True`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO


class Progress:
    """One line for the call: rewritten on a terminal, and elsewhere written at each tenth of the steps."""

    def __init__(self, steps: int, out: TextIO | None = None) -> None:
        self._steps = steps
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._tenth = 0
        self._open = False

    def step(self, done: int, event: Mapping[str, Any], dropped: int) -> None:
        """A gradient step of the call is done."""
        tenth = done * 10 // self._steps
        if not (self._live or tenth > self._tenth or done == self._steps):
            return
        self._tenth = tenth
        line = f"sft train  {done}/{self._steps}  loss {event['loss']:.4f}  lr {event['learning_rate']:.3g}"
        if dropped:
            line += f"  dropped {dropped}"
        if self._live:
            self._out.write(f"\r\x1b[K{line}")
            self._open = done < self._steps
            if not self._open:
                self._out.write("\n")
        else:
            self._out.write(line + "\n")
        self._out.flush()

    def notice(self, message: str) -> None:
        """Something a user should hear of."""
        self.end()
        self._out.write(message + "\n")
        self._out.flush()

    def end(self) -> None:
        """Leave the line that is being rewritten."""
        if self._open:
            self._out.write("\n")
            self._open = False
