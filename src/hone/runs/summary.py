"""What a run folder says in one row, and how two of them differ. It only reads; it knows no screen.

A run may be alive while it is read, or have died at any instant: what is missing is None, never invented.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from hone.errors import EnvironmentFault, nearest
from hone.runs.events import read_events
from hone.runs.folder import RunFolder, find_runs
from hone.runs.metrics import loss_by_source

_RECENT_STEPS = 20


@dataclass(frozen=True)
class Summary:
    """One run, in numbers. `state` is running, finished, stopped, failed or interrupted."""

    name: str
    path: str
    state: str
    model: str | None
    data: str | None
    began: float | None
    """Unix seconds."""
    step: int
    steps: int | None
    loss: float | None
    held_out_loss: float | None
    """The best so far."""
    tokens: int
    """Of the rows as given, over all steps."""
    trained_tokens: int
    computed_tokens: int
    """What was left to compute after prefix sharing."""
    seconds: float
    """Spent in steps; a step redone after a resume counts once."""
    peak_memory_bytes: int | None
    """Of the fullest rank."""
    utilisation: float | None = None
    """Model FLOPs a second over the rate of matrix products on this machine, over all steps."""
    loss_by_source: Mapping[str, float] = field(default_factory=dict[str, float])
    """Over the last 20 steps; empty where there is but one source."""
    held_out_by_source: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of the best evaluation."""
    sampled_step: int | None = None
    samples: tuple[Mapping[str, Any], ...] = ()
    """What the model wrote when it was last asked: `name`, `prompt`, `reply`, `wanted`, `finish`."""
    ranks: int = 1
    strategy: str = "alone"
    notices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """A setting, or a fact such as a version, that two runs do not share."""

    name: str
    first: object
    second: object


def find_run(name: str, *, root: Path) -> RunFolder:
    """The run at the path `name`, or of that name in `root`. Raises EnvironmentFault where there is none."""
    for path in (Path(name), root / name):
        if path.is_dir():
            return RunFolder.open(path)
    names = [folder.name for folder in find_runs(root)]
    remedy = nearest(name, names) if names else "`hone train` makes one"
    raise EnvironmentFault(f"no run {name!r}", where=str(root), remedy=remedy)


def summarize(folder: RunFolder) -> Summary:
    """Read one run. Raises EnvironmentFault or DiskError for a damaged folder."""
    steps: dict[int, Mapping[str, Any]] = {}
    held_out: dict[int, Mapping[str, Any]] = {}
    sampled: Mapping[str, Any] = {}
    began: float | None = None
    last = ""
    notices: dict[str, None] = {}
    for event in read_events(folder.events_file):
        if event.name in ("started", "phase") and began is None:
            began = event.time
        elif event.name == "step":
            steps[int(event["step"])] = event.fields
        elif event.name == "evaluated" and event["loss"] is not None:
            held_out[int(event["step"])] = event.fields
        elif event.name == "sample":
            sampled = event.fields
        elif event.name == "notice":
            notices[str(event["message"])] = None
        if event.name in ("started", "finished", "failed", "stopped", "step"):
            last = event.name
    newest: Mapping[str, Any] = steps[max(steps)] if steps else {}
    best = min(held_out.values(), key=lambda fields: float(fields["loss"]), default=None)
    config = _config(folder)
    held: list[Any] = (folder.read_identity() or {}).get("held") or [1, "alone"]
    return Summary(
        name=folder.name,
        path=str(folder.path),
        state=_state(folder, last),
        model=_text(config, "model", "name"),
        data=_text(config, "data", "path") or _sources(config),
        began=began,
        step=max(steps, default=0),
        steps=newest.get("steps"),
        loss=newest.get("loss"),
        held_out_loss=None if best is None else float(best["loss"]),
        tokens=_total(steps.values(), "tokens"),
        trained_tokens=_total(steps.values(), "trained_tokens"),
        computed_tokens=_total(steps.values(), "computed_tokens"),
        seconds=sum(float(step.get("seconds") or 0) for step in steps.values()),
        peak_memory_bytes=max(
            (_whole(s, "peak_memory_bytes") for s in steps.values()), default=None
        ),
        utilisation=_utilisation(steps.values()),
        loss_by_source=loss_by_source([steps[n] for n in sorted(steps)[-_RECENT_STEPS:]]),
        held_out_by_source={} if best is None else loss_by_source([best]),
        sampled_step=sampled.get("step"),
        samples=tuple(sampled.get("samples") or ()),
        ranks=int(held[0]),
        strategy=str(held[1]),
        notices=tuple(notices),
    )


def differences(first: RunFolder, second: RunFolder) -> list[Difference]:
    """Settings, fingerprints and versions in which two runs differ, by name."""
    facts = [_facts(folder) for folder in (first, second)]
    names = dict.fromkeys([*facts[0], *facts[1]])
    return [
        Difference(name, facts[0].get(name), facts[1].get(name))
        for name in names
        if facts[0].get(name) != facts[1].get(name)
    ]


def _state(folder: RunFolder, last: str) -> str:
    if folder.owner() is not None:
        return "running"
    if (folder.read_identity() or {}).get("finished"):  # whatever was refused here afterwards
        return "finished"
    known = {"finished": "finished", "failed": "failed", "stopped": "stopped"}
    return known.get(last, "interrupted")


def _config(folder: RunFolder) -> Mapping[str, Any]:
    identity = folder.read_identity() or {}
    config: object = identity.get("config")
    return cast("dict[str, Any]", config) if isinstance(config, dict) else {}


def _facts(folder: RunFolder) -> dict[str, object]:
    """Everything that a run was begun with, by dotted name."""
    identity = folder.read_identity() or {}
    facts = dict(_flat(_config(folder), ""))
    for key in ("data", "validation", "model", "precision", "threads", "budgets", "held"):
        facts[f"resolved {key}"] = identity.get(key)
    versions = identity.get("versions")
    if isinstance(versions, dict):
        facts.update(_flat(cast("dict[str, Any]", versions), "version of "))
    return facts


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(config: Mapping[str, Any], section: str, key: str) -> str | None:
    part: object = config.get(section)
    value = cast("dict[str, Any]", part).get(key) if isinstance(part, dict) else None
    return value if isinstance(value, str) and value else None


def _total(steps: Iterable[Mapping[str, Any]], key: str) -> int:
    return sum(_whole(step, key) for step in steps)


def _sources(config: Mapping[str, Any]) -> str | None:
    """The names of several sources, or their paths."""
    data = cast("dict[str, Any]", config.get("data") or {})
    listed = cast("list[dict[str, Any]]", data.get("sources") or [])
    return " + ".join(str(one.get("name") or one.get("path")) for one in listed) or None


def _utilisation(steps: Iterable[Mapping[str, Any]]) -> float | None:
    """The steps' own, weighted by their seconds; None where none tells it."""
    told = [(float(s["utilisation"]), float(s["seconds"])) for s in steps if s.get("utilisation")]
    seconds = sum(each for _, each in told)
    return sum(share * each for share, each in told) / seconds if seconds > 0 else None


def _whole(step: Mapping[str, Any], key: str) -> int:
    return int(step.get(key) or 0)
