"""What a run's events mean to those who asked for the job: events of the job, checkpoints, progress.

It reads the file of events by its offset and knows no store. A step that is done again after a death is told once:
each thing that happens has a mark, and what a mark has told already is left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from hone.runs.events import Event
from hone.service.records import NewCheckpoint, NewEvent

Level = Literal["info", "warn", "error"]

_WARNED: Final = frozenset(
    {"checkpoint-skipped", "no-optimizer-state", "nothing-left", "spike", "empty-step", "unreadable-event"}
)  # fmt: skip
_PHASES: Final = {
    "reading": "Reading the rows",
    "loading": "Loading the model",
    "rehearsal": "Trying how much fits in memory",
    "saving": "Saving the model",
}
_COUNTS: Final = (
    "shape",
    "rows",
    "examples",
    "tokens",
    "trained_tokens",
    "dropped",
    "cut",
    "lost_tokens",
)
_RECENT: Final = 20  # steps whose mean time foretells the rest
_STEP_NUMBERS: Final = ("learning_rate", "grad_norm", "tokens", "trained_tokens", "computed_tokens", "seconds", "epoch")  # fmt: skip


@dataclass
class Batch:
    """What one reading found, and up to which byte of the file it read."""

    events: list[NewEvent] = field(default_factory=list[NewEvent])
    checkpoints: list[NewCheckpoint] = field(default_factory=list[NewCheckpoint])
    offset: int = 0


@dataclass
class Progress:
    """How far the run is."""

    step: int = 0
    steps: int | None = None
    trained_tokens: int = 0
    """Tokens of all rows of all steps, each step once."""
    seconds_left: float | None = None
    plan: dict[str, Any] | None = None

    def told(self) -> dict[str, Any]:
        """As the job object shows it."""
        return {"step": self.step, "total_steps": self.steps, "plan": self.plan}


class Follower:
    """Reads a run's events from where a former reading ended; what lies before is read for its numbers only.

    `shown` says what stands in a message instead of a folder of this machine.
    """

    def __init__(
        self, path: Path, *, offset: int = 0, shown: Mapping[str, str] | None = None
    ) -> None:
        self._path = path
        self._shown = dict(sorted((shown or {}).items(), key=lambda one: -len(one[0])))
        self._at = 0
        self._told: set[str] = set()
        self._losses: dict[int, float | None] = {}
        self._validation: dict[int, float | None] = {}
        self._tokens: dict[int, int] = {}
        self._recent: list[float] = []
        self._first = 0
        self._is_call = False  # what a call saves on its way is no model
        self.progress = Progress()
        while self._at < offset:
            before = self._at
            self.read(most_bytes=min(1 << 20, offset - self._at))
            if self._at == before:
                break

    @property
    def offset(self) -> int:
        """Up to which byte the file was read."""
        return self._at

    def read(self, *, most_bytes: int = 1 << 20) -> Batch:
        """What happened since, up to a checkpoint; at most so many bytes of it, but at least one whole line."""
        batch = Batch(offset=self._at)
        if not self._path.exists():
            return batch
        with self._path.open("rb") as file:
            file.seek(0, 2)
            self._at = min(self._at, file.tell())  # the power failed, and the file lost its end
            file.seek(self._at)
            begun = self._at
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                event = _parse(line)
                if event is not None:
                    self._take(event, batch)
                if self._at - begun >= most_bytes or batch.checkpoints:
                    break
        batch.offset = self._at
        return batch

    def csv(self) -> str:
        """The result file: a line for each step."""
        lines = ["step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"]
        for step, loss in sorted(self._losses.items()):
            lines.append(f"{step},{_cell(loss)},,{_cell(self._validation.get(step))},")
        return "\n".join(lines) + "\n"

    def _take(self, event: Event, batch: Batch) -> None:
        told = self._tell(event)
        # One that was saved by a process which died before it could say so is known by what goes on from it.
        if event.name in ("saved", "resumed") and not self._is_call:
            step = int(event["step"])
            path = self._path.parent / "checkpoints" / f"step-{step:08d}"
            if self._is_new(f"checkpoint/{step}"):
                kept = NewCheckpoint(step, str(path), self._metrics(step), int(event.time))
                batch.checkpoints.append(kept)
        for one in told:
            if self._is_new(str(one.mark)):
                message, at = hide(one.message, self._shown), int(event.time)
                batch.events.append(dataclasses.replace(one, message=message, created=at))

    def _is_new(self, mark: str) -> bool:
        if mark in self._told:
            return False
        self._told.add(mark)
        return True

    def _tell(self, event: Event) -> Iterable[NewEvent]:
        """What a job's events say of one event of its run."""
        match event.name:
            case "step":
                return self._of_step(event)
            case "evaluated":
                return self._of_evaluation(event)
            case "phase" if event.get("name") in _PHASES:
                return [NewEvent(_PHASES[event["name"]], mark=f"phase:{event['name']}")]
            case "plan":
                self.progress.plan = dict(event.fields)
                self.progress.steps = _whole(event.get("steps"))
                return [
                    _message(
                        f"The plan: {self.progress.steps} steps", "plan", data=dict(event.fields)
                    )
                ]
            case "data":
                return self._of_data(event)
            case "call":
                self._first, self._is_call = int(event["first"]), True
                self.progress.steps = len(event["counts"])
                return []
            case "resumed":
                message = f"Training goes on from step {int(event['step']) - self._first}"
                return [_message(message, f"resumed:{event.time:.6f}")]
            case "notice":
                return [_of_notice(event)]
            case "halved":
                tokens = event.get("micro_batch_tokens")
                message = f"Memory ran out at step {event['step']}: Packs of {tokens} tokens from there on"
                return [_message(message, f"halved:{event['step']}:{tokens}", "warn")]
            case _:
                return []

    def _of_step(self, event: Event) -> list[NewEvent]:
        step = int(event["step"]) - self._first
        steps = self.progress.steps = self.progress.steps or _whole(event.get("steps"))
        loss = _finite(event.get("loss"))
        is_again = step in self._losses
        self._losses[step] = loss
        self._tokens[step] = int(event.get("tokens") or 0)
        self._recent = [*self._recent, float(event.get("seconds") or 0.0)][-_RECENT:]
        self.progress.step = step
        self.progress.trained_tokens = sum(self._tokens.values()) if is_again else (
            self.progress.trained_tokens + self._tokens[step]
        )  # fmt: skip
        if steps:
            mean = math.fsum(self._recent) / len(self._recent)
            self.progress.seconds_left = mean * max(0, steps - step)
        data: dict[str, Any] = {"step": step, "total_steps": steps, "train_loss": loss}
        data |= {name: event.get(name) for name in _STEP_NUMBERS if event.get(name) is not None}
        if self._first or "gradient_step" in event.fields:
            data["gradient_step"] = int(event["step"])
        message = f"Step {step}/{steps}: training loss={_shown_loss(loss)}"
        return [NewEvent(message, "metrics", data=data, mark=f"step:{step}")]

    def _of_evaluation(self, event: Event) -> list[NewEvent]:
        step = int(event["step"])
        loss = self._validation[step] = _finite(event.get("loss"))
        steps = self.progress.steps
        data = {"step": step, "total_steps": steps, "full_valid_loss": loss, "valid_loss": loss}
        message = f"Step {step}/{steps}: full validation loss={_shown_loss(loss)}"
        return [NewEvent(message, "metrics", data=data, mark=f"valid:{step}")]

    def _of_data(self, event: Event) -> list[NewEvent]:
        message = f"Rows: {event.get('summary') or json.dumps(dict(event.fields))}"
        level: Level = "warn" if event.get("dropped") else "info"
        data = {name: event.get(name) for name in _COUNTS if event.get(name) is not None}
        return [_message(message, _mark_of("data", message), level, data)]

    def _metrics(self, step: int) -> dict[str, Any]:
        found = {
            "step": step,
            "train_loss": self._losses.get(step),
            "valid_loss": self._validation.get(step),
            "full_valid_loss": self._validation.get(step),
        }
        return {name: value for name, value in found.items() if value is not None}


def hide(message: str, shown: Mapping[str, str]) -> str:
    """A message without the folders of this machine."""
    for folder, name in shown.items():
        message = message.replace(folder, name)
    return message


def _of_notice(event: Event) -> NewEvent:
    message = str(event.get("message") or event.get("code") or "notice")
    level: Level = "warn" if event.get("code") in _WARNED else "info"
    return _message(message, _mark_of("notice", message), level, {"code": event.get("code")})


def _message(
    message: str, mark: str, level: Level = "info", data: dict[str, Any] | None = None
) -> NewEvent:
    return NewEvent(message, level=level, data=data, mark=mark)


def _mark_of(kind: str, message: str) -> str:
    return f"{kind}:{hashlib.sha256(message.encode()).hexdigest()[:16]}"


def _parse(line: bytes) -> Event | None:
    try:
        # A number that is none is told as an absent one: no answer may hold a word that JSON has not.
        told: Any = json.loads(line, parse_constant=lambda _: None, parse_float=_number)
        return Event(told.pop("event"), float(told.pop("time")), told)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _number(text: str) -> float | None:
    return _finite(float(text))


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)


def _shown_loss(loss: float | None) -> str:
    return "not a number" if loss is None else f"{loss:.4f}"
