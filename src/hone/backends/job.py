"""What a launcher gives to each rank: the configuration, and the rank's place among the others. JSON, no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from hone.config.layers import Resolved
from hone.config.sections import Config


@dataclass(frozen=True)
class Place:
    """A rank among the others, and where they meet."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    store: str
    """Where they meet: a file that all ranks of one machine see, or `tcp://HOST:PORT` of the first machine."""
    on_gpu: bool = False
    gpu: int = 0
    """Which of the visible GPUs, where it computes on one."""

    @property
    def spans_machines(self) -> bool:
        """Whether the launcher that started this rank has not started all of them."""
        return self.store.startswith("tcp://")


def is_loopback(store: str) -> bool:
    """Whether ranks meet at an address that never leaves the machine."""
    host = urlsplit(store).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


@dataclass(frozen=True)
class Job:
    """One start of a run."""

    config: dict[str, Any]
    origins: dict[str, str]
    command: list[str]
    fresh: bool
    accept_changes: bool
    lower: tuple[int, int] | None = None
    """(from_step, micro_batch_tokens) of a start anew after memory ran out."""
    remarks: list[str] = field(default_factory=list[str])
    """What was said of the configuration when it was resolved."""

    @classmethod
    def of(
        cls, resolved: Resolved, *, command: list[str], fresh: bool, accept_changes: bool
    ) -> Job:
        """The job of a resolved configuration."""
        return cls(
            config=resolved.config.model_dump(mode="json"),
            origins=dict(resolved.origins),
            command=command,
            fresh=fresh,
            accept_changes=accept_changes,
            remarks=list(resolved.remarks),
        )

    @property
    def resolved(self) -> Resolved:
        """The configuration again."""
        return Resolved(Config.model_validate(self.config), self.origins, tuple(self.remarks))

    def encode(self, place: Place) -> bytes:
        """One line for a rank."""
        return json.dumps({"job": asdict(self), "place": asdict(place)}).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> tuple[Job, Place]:
        """The inverse of `encode`."""
        told: dict[str, Any] = json.loads(line)
        return cls._of_json(told["job"]), Place(**told["place"])

    def encode_job(self) -> str:
        """The job alone, for who finds places later."""
        return json.dumps(asdict(self))

    @classmethod
    def decode_job(cls, text: str) -> Job:
        """The inverse of `encode_job`."""
        return cls._of_json(json.loads(text))

    @classmethod
    def _of_json(cls, told: dict[str, Any]) -> Job:
        lower = told.pop("lower")
        return cls(**told, lower=None if lower is None else (int(lower[0]), int(lower[1])))
