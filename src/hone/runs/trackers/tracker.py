"""What a tracker is, and what it is told. It knows no library.

To add one: a file with a class like those here, a line in `choice.py`, a name in `config/sections.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

Ending = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker is to know it."""

    name: str
    project: str
    tags: tuple[str, ...]
    entity: str | None
    uri: str | None
    folder: Path
    """Where local files may go."""
    beside: Path
    """The folder that holds the run's own."""
    config: Mapping[str, Any]
    """Dotted names of settings to their values."""
    id: str | None
    """What `Tracker.id` was when this run was tracked before; None the first time."""
    artifact: Path | None = None
    """The run's folder, where its model or adapter is to be sent when it has finished; else None."""


@dataclass(frozen=True)
class Point:
    """Numbers of one step."""

    step: int
    time: float
    """Unix seconds."""
    metrics: Mapping[str, float]
    """By the names of `hone.runs.metrics.tracker_name`."""


@dataclass(frozen=True)
class Sample:
    """What the model wrote after one prompt; `wanted` is the row's own answer, where there is one."""

    name: str
    prompt: str
    reply: str
    wanted: str | None


class Tracker(Protocol):
    """Made with a TrackedRun; any call may raise, block or fail, and no run is hurt by it."""

    @property
    def id(self) -> str:
        """What finds the same run again, after a resume."""
        ...

    @property
    def place(self) -> str:
        """Where a user finds it: an address, or a command."""
        ...

    @property
    def notices(self) -> Sequence[str]:
        """What a user should know of how it was opened."""
        ...

    def log(self, points: Sequence[Point]) -> None:
        """Keep these numbers; steps never go backwards."""
        ...

    def log_samples(self, step: int, time: float, samples: Sequence[Sample]) -> None:
        """Keep what the model wrote after a step."""
        ...

    def close(self, ending: Ending) -> None:
        """Send what is waiting, and say how the run ended."""
        ...


def flat_config(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flat_config(cast("Mapping[str, Any]", value), f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def samples_page(samples: Sequence[Sample]) -> str:
    """Samples as Markdown. What the model wrote stands indented, so that none of it is taken for markup."""
    parts: list[str] = []
    for one in samples:
        parts.append(f"**{one.name}**" if one.name else "")
        told = [("prompt", one.prompt), ("reply", one.reply), ("wanted", one.wanted)]
        for title, text in told:
            if text is not None:
                parts += [title, "\n".join(f"    {line}" for line in text.split("\n"))]
    return "\n\n".join(part for part in parts if part)
