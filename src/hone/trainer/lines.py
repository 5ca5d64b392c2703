"""What an `SFTTrainer` writes while it trains: plain lines, in the words of its configuration. It knows only events."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

from hone.config.dialects.flat import flat_words
from hone.runs.events import Event

_PHASES = {
    "reading": "reading the rows",
    "loading": "loading the model",
    "rehearsal": "rehearsing the largest pass",
    "training": "training",
}


class Lines:
    """A listener that writes a line for what a user should hear, and one about the loss every `every` steps.

    A reader that goes away silences it and never the run.
    """

    def __init__(self, every: int, stream: TextIO | None = None) -> None:
        self._every = every
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Write what is to be told of an event."""
        told = self._describe(event)
        if told is not None:
            self.write(told)

    def write(self, text: str) -> None:
        """One line."""
        with contextlib.suppress(OSError, ValueError):
            stream = self._stream or sys.stderr
            stream.write(f"{text}\n")
            stream.flush()

    def _describe(self, event: Event) -> str | None:
        match event.name:
            case "phase":
                return _PHASES.get(str(event["name"]))
            case "notice" if event.get("code") == "finished":
                return "this run is finished: train(fresh=True) starts over"
            case "notice":
                return f"note: {flat_words(str(event['message']))}"
            case "data":
                return _data(event)
            case "resumed":
                return f"resumed after step {event['step']}"
            case "step":
                return self._step(event)
            case "evaluated":
                return (
                    f"step {event['step']}: val_loss {_loss(event['loss'])} ({event['rows']} rows)"
                )
            case "halved":
                tokens = event["micro_batch_tokens"]
                return f"step {event['step']}: memory ran out; from here {tokens:,} tokens a pass"
            case "stopped":
                return f"stopped after step {event['step']}: saved; the same call goes on"
            case "finished":
                return f"finished: {event['steps']} steps, loss {_loss(event['loss'])}, {event['path']}"
            case _:
                return None

    def _step(self, event: Event) -> str | None:
        step, last = int(event["step"]), int(event["steps"])
        if step % self._every and step not in (1, last):
            return None
        speed = int(event["tokens"]) / max(1e-9, float(event["seconds"]))
        return (
            f"step {step}/{last}  epoch {event['epoch']:.2f}  loss {_loss(event['loss'])}  "
            f"lr {event['learning_rate']:.2e}  {speed:,.0f} tok/s"
        )


def _data(event: Event) -> str:
    summary = event.get("summary") or f"{event['rows']:,} rows"
    told = f"{summary}; {event['tokens']:,} tokens, {event['trained_tokens']:,} trained"
    return f"{event['file']}: {told}" if event.get("file") else told


def _loss(loss: object) -> str:
    return f"{loss:.4f}" if isinstance(loss, int | float) else "not a number"
