"""Plots of an evaluation as SVG inside a page: no script, no font, nothing fetched. Colours come from the page's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import numpy as np

from hone.recipes.evaluation.bootstrap import Floats, Interval
from hone.recipes.evaluation.players import BASE, TUNED
from hone.recipes.evaluation.result import Taken

_WIDTH: Final = 720
_LEFT: Final = 130
_RIGHT: Final = 70
_ROW: Final = 34
_BINS: Final = 24


def scores(taken: Sequence[Taken]) -> str:
    """Each measure that has a best value, as dots with their intervals on a scale from 0 to that; '' for none."""
    shown = [one for one in taken if one.top is not None and one.tuned.value is not None]
    if not shown:
        return ""
    height = _ROW * len(shown) + 30
    parts = [_open(height, "measures with their 95% intervals")]
    for tick in range(5):
        x = _x(tick / 4)
        parts.append(_line(x, 8, x, height - 22, "grid"))
        parts.append(_text(x, height - 6, f"{tick * 25}%", "middle"))
    for row, one in enumerate(shown):
        y = 8 + _ROW * row + _ROW / 2
        parts.append(_text(_LEFT - 10, y + 4, one.name, "end"))
        sides = [(TUNED, one.tuned, y - 6)] + ([(BASE, one.base, y + 6)] if one.base else [])
        for name, interval, at in sides:
            parts += _whisker(name, interval, one.top or 1.0, at)
    return "".join([*parts, "</svg>"])


def differences(taken: Sequence[Taken]) -> str:
    """The difference of each measure with its interval, tuned minus base, and zero between; '' without a base."""
    shown = [
        one for one in taken if one.difference is not None and one.difference.value is not None
    ]
    shown = [one for one in shown if one.name != "perplexity"]
    if not shown:
        return ""
    height = _ROW * len(shown) + 12
    parts = [_open(height, "differences, tuned minus base, with their 95% intervals")]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    half = (_WIDTH - _RIGHT - _LEFT) / 2
    parts.append(_line(middle, 4, middle, height - 4, "axis"))
    for row, one in enumerate(shown):
        assert one.difference is not None
        y = 8 + _ROW * row + _ROW / 2
        found = one.difference
        value = found.value or 0.0
        low = value if found.low is None else found.low
        high = value if found.high is None else found.high
        # Each on a scale of its own: nats, shares and points are not to be compared with each other.
        scale = half / max(abs(low), abs(high), 1e-12)
        look = {"better": "good", "worse": "bad"}.get(one.verdict, "even")
        parts.append(_text(_LEFT - 10, y + 4, one.name, "end"))
        parts.append(_line(middle + low * scale, y, middle + high * scale, y, f"bar {look}"))
        parts.append(
            f'<circle cx="{middle + value * scale:.1f}" cy="{y:.1f}" r="5" class="dot {look}"/>'
        )
        parts.append(_text(_WIDTH - _RIGHT + 8, y + 4, f"{value:+.3g}", "start"))
    return "".join([*parts, "</svg>"])


def histogram(losses: Mapping[str, Sequence[float]]) -> str:
    """How many rows have which loss, of each model; '' where there are none."""
    listed = [loss for one in losses.values() for loss in one]
    every: Floats = np.asarray(listed, dtype=np.float64)
    every = every[np.isfinite(every)]
    if every.size == 0:
        return ""
    high = float(every.max()) or 1.0
    edges = np.linspace(min(0.0, float(every.min())), high * (1 + 1e-9), _BINS + 1)
    counts = {name: np.histogram(np.asarray(list(one)), edges)[0] for name, one in losses.items()}
    most = max(1, *(int(one.max()) for one in counts.values()))
    height, floor = 200, 172
    parts = [_open(height, "rows by their loss")]
    wide = (_WIDTH - 60) / _BINS
    for name, found in counts.items():
        for i, count in enumerate(found):
            tall = (floor - 12) * int(count) / most
            parts.append(
                f'<rect x="{40 + i * wide:.1f}" y="{floor - tall:.1f}" width="{wide - 1:.1f}" '
                f'height="{tall:.1f}" class="fill {name}"><title>{escape(name)}: {int(count):,} rows, loss '
                f"{edges[i]:.3g} to {edges[i + 1]:.3g}</title></rect>"
            )
    parts.append(_line(40, floor, _WIDTH - 20, floor, "axis"))
    parts.append(_text(34, 20, f"{most:,}", "end"))
    parts.append(_text(34, floor, "0", "end"))
    for share in (0.0, 0.5, 1.0):
        loss = edges[0] + share * (edges[-1] - edges[0])
        parts.append(_text(40 + share * (_WIDTH - 60), height - 8, f"{loss:.3g}", "middle"))
    return "".join([*parts, "</svg>"])


def _whisker(name: str, one: Interval, top: float, y: float) -> list[str]:
    if one.value is None:
        return []
    found: list[str] = []
    if one.low is not None and one.high is not None:
        found.append(_line(_x(one.low / top), y, _x(one.high / top), y, f"bar {name}"))
    found.append(f'<circle cx="{_x(one.value / top):.1f}" cy="{y:.1f}" r="5" class="dot {name}"/>')
    return found


def _x(share: float) -> float:
    return _LEFT + min(1.0, max(0.0, share)) * (_WIDTH - _LEFT - _RIGHT)


def _open(height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{look}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
