"""What makes a run the same run: its settings, rows, model and versions; and what differs from before.

It knows no tensors.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from hone.config.sections import Config
from hone.errors import ChangedSettings
from hone.runs.events import Say

_PACKAGES = ("hone", "torch", "transformers", "peft", "tokenizers")
_QUANTIZER = "bitsandbytes"
_HASHES = {
    "data": "the rows",
    "validation": "the held-out rows",
    "model": "the model",
    "adapter": "the adapter",
}
# Where a run lies, on how many ranks it runs, who hears of it and what it is asked on the way do not make it another run.
_FREE = (
    "output.",
    "train.sample_",
    "compute.launcher",
    "compute.nnodes",
    "compute.node_rank",
    "compute.nproc",
    "compute.rdzv_endpoint",
    "compute.strategy",
    "compute.deepspeed",
)


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    with contextlib.suppress(PackageNotFoundError):
        found[_QUANTIZER] = version(_QUANTIZER)
    return found


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names to values; mappings that a user filled stay whole."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name.count(".") < 2 and name not in _WHOLE:
            values.update(flat(cast("Mapping[str, Any]", value), f"{name}."))
        else:
            values[name] = value
    return values


_WHOLE = ("data.columns", "data.template_kwargs")


def changes(
    before: Mapping[str, Any], config: Config, hashes: Mapping[str, str | None]
) -> list[str]:
    """One line for each setting or content that differs from the run's beginning."""
    lines: list[str] = []
    old = flat(cast("Mapping[str, Any]", before.get("config") or {}))
    new = flat(config.model_dump(mode="json"))
    for name in sorted(old.keys() | new.keys()):
        if not name.startswith(_FREE) and old.get(name) != new.get(name):
            lines.append(f"{name}: {old.get(name)!r} -> {new.get(name)!r}")
    for key, meaning in _HASHES.items():
        if before.get(key) != hashes.get(key):
            lines.append(f"{meaning} changed (another content hash)")
    return lines


def refuse_changes(lines: Sequence[str], *, folder: str, command: Sequence[str]) -> None:
    """Raise ConfigError with the differences and the three ways on."""
    if not lines:
        return
    again = shlex.join(command) if command else "the same command"
    raise ChangedSettings(
        "this run was begun with other settings:\n  " + "\n  ".join(lines),
        where=folder,
        remedy=f"to go on with the new settings: {again} --accept-changes; to start over: {again} "
        "--fresh; to keep both: choose another --output",
    )


def say_other_versions(before: Mapping[str, Any], say: Say) -> None:
    """A notice where a run goes on under other versions."""
    then: dict[str, str] = before.get("versions") or {}
    now = versions()
    other = [f"{k} {then.get(k)} -> {v}" for k, v in now.items() if then.get(k) != v]
    if other:
        say(
            "notice",
            code="versions",
            message=f"resumed under other versions ({', '.join(other)}): the last bits may differ",
        )


def say_other_ranks(then: Sequence[Any] | None, now: Sequence[Any], say: Say) -> None:
    """A notice where a run goes on with another number of ranks, or another strategy; [ranks, strategy] each."""
    if then and list(then) != list(now):
        names = [f"{n} {'rank' if n == 1 else 'ranks'} ({how})" for n, how in (then, now)]
        say(
            "notice",
            code="ranks",
            message=f"resumed with {names[1]} instead of {names[0]}: the same rows in the same steps, "
            "equal to rounding",
        )
