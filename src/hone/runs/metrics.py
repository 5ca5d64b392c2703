"""The numbers of an event, flat and by name, as callbacks and trackers get them. It knows no tracker.

After a step: `loss`, `grad_norm`, `learning_rate`, `epoch`, `utilisation`, `peak_memory_bytes`, and
three speeds: `tokens_per_second` counts the rows as given, `computed_tokens_per_second` what was left to compute
after prefix sharing, `trained_tokens_per_second` what was learned from. After an evaluation: `eval_loss`. With several
sources also `loss/<source>` and `eval_loss/<source>`. A number that is none (a loss of NaN) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

_OF_STEP: Final = ("loss", "grad_norm", "learning_rate", "epoch", "utilisation", "peak_memory_bytes")  # fmt: skip
_SPEEDS: Final = ("tokens", "trained_tokens", "computed_tokens")


def metrics_of(event: str, fields: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a `step` or `evaluated` event; empty for any other."""
    if event == "step":
        found = {name: fields.get(name) for name in _OF_STEP}
        seconds = _number(fields.get("seconds"))
        for name in _SPEEDS:
            count = _number(fields.get(name))
            if count is not None and seconds:
                found[f"{name}_per_second"] = count / seconds
        return _numbers({**found, **_by_source("loss", fields)})
    if event == "evaluated":
        return _numbers({"eval_loss": fields.get("loss"), **_by_source("eval_loss", fields)})
    return {}


def loss_by_source(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The mean loss of each source over several `step` events, or of one `evaluated`: weighted as the loss itself is.

    Empty where there is but one source.
    """
    totals: dict[str, tuple[float, float]] = {}
    for fields in events:
        for name, part in _sources(fields).items():
            loss, weight = _number(part.get("loss")), _number(part.get("weight"))
            if loss is not None and weight is not None:
                total, whole = totals.get(name, (0.0, 0.0))
                totals[name] = (total + loss * weight, whole + weight)
    return {name: total / weight for name, (total, weight) in totals.items() if weight > 0}


def tracker_name(metric: str) -> str:
    """The name under which trackers group a metric: `train/loss`, `eval/loss/code`, `speed/tokens_per_second`."""
    if metric.startswith("eval_"):
        return f"eval/{metric.removeprefix('eval_')}"
    is_speed = metric.endswith("_per_second") or metric in ("utilisation", "peak_memory_bytes")
    return f"{'speed' if is_speed else 'train'}/{metric}"


def _by_source(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}/{source}": part.get("loss") for source, part in _sources(fields).items()}


def _sources(fields: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    sources: object = fields.get("sources")
    if not isinstance(sources, Mapping):
        return {}
    return cast("Mapping[str, Mapping[str, Any]]", sources)


def _numbers(found: Mapping[str, object]) -> dict[str, float]:
    return {name: n for name, value in found.items() if (n := _number(value)) is not None}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
