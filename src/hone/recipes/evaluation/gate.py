"""A gate for CI: the least that measures must come to. It measures nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hone.errors import ConfigError, GateMissed, nearest
from hone.recipes.evaluation.choice import NAMES
from hone.recipes.evaluation.result import Taken


def read_gates(words: Sequence[str]) -> dict[str, float]:
    """`METRIC=VALUE`, each. Raises ConfigError for a measure that is none, and a value that is no number."""
    found: dict[str, float] = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(
                f"--fail-under {word!r} is no METRIC=VALUE",
                remedy="e.g. --fail-under exact_match=0.8",
            )
        if name not in NAMES:
            raise ConfigError(f"--fail-under: no measure {name!r}", remedy=nearest(name, NAMES))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(
                f"--fail-under {name}: {value!r} is no number",
                remedy=f"e.g. --fail-under {name}=0.8",
            )
        if name in found:
            raise ConfigError(f"--fail-under names {name} twice", remedy="say it once")
        found[name] = number
    return found


def refuse_unmeasured(gates: Mapping[str, float], left_out: Mapping[str, str]) -> None:
    """Raise ConfigError for a gate whose measure is not taken: it would pass unseen."""
    for name in gates:
        if name in left_out:
            raise ConfigError(
                f"--fail-under {name}: it is not measured: {left_out[name]}",
                remedy="give what it needs, or leave this gate out",
            )


def missed(gates: Mapping[str, float], taken: Sequence[Taken]) -> list[str]:
    """What is worse than its gate, in words: below it, or above it where less is better; what has no value is."""
    by_name = {one.name: one for one in taken}
    found: list[str] = []
    for name, gate in gates.items():
        one = by_name.get(name)
        value = None if one is None else one.tuned.value
        if one is None or value is None:
            found.append(f"{name} has no value, and {gate:g} is asked for")
        elif value < gate if one.better == "higher" else value > gate:
            side = "below" if one.better == "higher" else "above"
            found.append(f"{name} is {value:.6g}, {side} {gate:g}")
    return found


def raise_missed(what: Sequence[str], where: str) -> None:
    """Raise GateMissed where anything is."""
    if what:
        raise GateMissed(
            "a gate is missed: " + "; ".join(what),
            where=where,
            remedy="look at the misses in the report; train longer or on more rows, or lower --fail-under",
        )
