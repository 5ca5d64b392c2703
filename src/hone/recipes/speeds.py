"""What rehearsals measured on this machine, kept in the cache so that the next plan can say how long a run takes.

One small JSON file for each (machine, model shape, method, precision, threads); the newest rehearsal wins. No torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from hone.config.sections import Config
from hone.engine import machine
from hone.engine.cost import Speeds
from hone.models.shape import Shape
from hone.recipes.cache import cache_folder
from hone.recipes.identity import flat
from hone.recipes.packages import installed

_FORM: Final = 1  # of the files; another one is not read
_ARITHMETIC: Final = ("compute.gradient_checkpointing", "compute.device", "compute.compile")


@dataclass(frozen=True)
class Measured:
    """One rehearsal: what it took, and under what."""

    precision: str
    micro_batch_tokens: int
    speeds: Speeds
    trained_share: float
    """Predicting positions of its trial Packs, per token."""
    base_bytes: int
    """Memory of the process before the model was loaded: Python, libraries, rows."""
    at: float
    """Unix seconds."""
    pace: float = 1.0
    """Seconds that steps then took, for each second that the rehearsal foretold."""


def occasion(config: Config, shape: Shape, *, threads: int, precision: str) -> dict[str, Any]:
    """What a speed depends on, as plain JSON."""
    settings = flat(config.model_dump(mode="json"))
    name, flags = machine.processor()
    tuning = {k: v for k, v in settings.items() if k.startswith("tuning.")}
    if settings.get("tuning.method") == "full":
        tuning = {"tuning.method": "full"}
    return {
        "form": _FORM,
        "machine": [name, list(flags), machine.allowed_cores(), os.uname().nodename],
        "versions": [installed("torch"), installed("transformers")],
        "model": [
            shape.family, shape.layers, shape.hidden, shape.intermediate, shape.heads,
            shape.key_heads, shape.head_size, shape.vocabulary, shape.experts,
        ],
        "settings": {**tuning, **{k: settings[k] for k in _ARITHMETIC if k in settings}},
        "threads": threads,
        "precision": precision,
    }  # fmt: skip


def remember(about: Mapping[str, Any], measured: Measured) -> None:
    """Keep a rehearsal. A cache that cannot be written is no reason to stop: then nothing is kept."""
    path = _path(about)
    told = {
        "about": about,
        "measured": {
            "precision": measured.precision,
            "micro_batch_tokens": measured.micro_batch_tokens,
            "seconds_per_token": {str(k): v for k, v in measured.speeds.token.items()},
            "seconds_per_pair": measured.speeds.pair,
            "trained_share": measured.trained_share,
            "base_bytes": measured.base_bytes,
            "at": measured.at,
            "pace": measured.pace,
        },
    }
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(told, indent=1), encoding="utf-8")
        beside.replace(path)


def recall(about: Mapping[str, Any]) -> Measured | None:
    """The rehearsal that was measured under the same; None where there is none, or none that can be read."""
    try:
        told = json.loads(_path(about).read_bytes())
        if told["about"] != json.loads(json.dumps(about)):
            return None
        return _read(cast("dict[str, Any]", told["measured"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def now() -> float:
    """The time of a rehearsal that is made now."""
    return time.time()


def _read(told: Mapping[str, Any]) -> Measured:
    speeds = Speeds(
        {int(k): float(v) for k, v in told["seconds_per_token"].items()},
        float(told["seconds_per_pair"]),
    )
    return Measured(
        precision=str(told["precision"]),
        micro_batch_tokens=int(told["micro_batch_tokens"]),
        speeds=speeds,
        trained_share=float(told["trained_share"]),
        base_bytes=int(told["base_bytes"]),
        at=float(told["at"]),
        pace=float(told["pace"]),
    )


def _path(about: Mapping[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / "speeds" / f"{name}.json"
