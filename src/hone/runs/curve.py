"""The loss curve of a run, as numbers, as a picture and as text. It knows nothing but events."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.errors import DiskError
from hone.runs.disk import Disk
from hone.runs.events import read_events
from hone.runs.metrics import loss_by_source

Point = tuple[int, float]  # step counted from 1, loss

_SMOOTHED_SHARE = 50  # the smoothed line looks about 1/50 of the run to either side
_SOURCE_COLOURS = ("#31a354", "#756bb1", "#e6ab02", "#17becf", "#e377c2", "#7f7f7f")
_LONGEST_NAME = 40  # characters of a source's name in the legend
_LABEL_COLUMNS = 8
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] of a braille cell


@dataclass(frozen=True)
class Curve:
    """Losses by step, ascending; a step whose loss is not a number is left out."""

    title: str
    train: tuple[Point, ...]
    held_out: tuple[Point, ...]
    sources: tuple[tuple[str, tuple[Point, ...]], ...] = ()
    """Each source's name and losses, on held-out rows where there are some; empty for one source."""

    @property
    def best(self) -> Point | None:
        """The evaluation with the least loss, the earlier of equal ones."""
        return min(self.held_out, key=lambda point: (point[1], point[0]), default=None)


def read_curve(events: Path, *, title: str) -> Curve:
    """The curve that a run's events tell so far; a step done again after a resume counts once."""
    losses: dict[str, dict[int, float]] = {"step": {}, "evaluated": {}}
    parts: dict[str, dict[str, dict[int, float]]] = {"step": {}, "evaluated": {}}
    for event in read_events(events):
        if event.name in losses and isinstance(event.get("loss"), int | float):
            losses[event.name][int(event["step"])] = float(event["loss"])
            for name, loss in loss_by_source([event.fields]).items():
                parts[event.name].setdefault(name, {})[int(event["step"])] = loss
    by_source = parts["evaluated"] or parts["step"]
    return Curve(
        title=title,
        train=tuple(sorted(losses["step"].items())),
        held_out=tuple(sorted(losses["evaluated"].items())),
        sources=tuple((name, tuple(sorted(own.items()))) for name, own in by_source.items()),
    )


def smoothed(points: Sequence[Point]) -> list[Point]:
    """An exponential mean taken forward and then backward, so that it does not lag behind."""
    keep = math.exp(-_SMOOTHED_SHARE / max(_SMOOTHED_SHARE, len(points)))
    losses = [loss for _, loss in points]
    forward = _exponential_mean(losses, keep)
    both = _exponential_mean(forward[::-1], keep)[::-1]
    return [(step, loss) for (step, _), loss in zip(points, both, strict=True)]


def _exponential_mean(values: Sequence[float], keep: float) -> list[float]:
    """Each mean is over what has been seen so far, so that the beginning is not drawn towards 0."""
    total, weight, means = 0.0, 0.0, list[float]()
    for value in values:
        total, weight = total * keep + value, weight * keep + 1.0
        means.append(total / weight)
    return means


def draw_png(curve: Curve, path: Path, *, disk: Disk | None = None) -> None:
    """Write the picture, whole or not at all. Raises DiskError. matplotlib is loaded here."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.set_title(curve.title, parse_math=False)
    axes.set_xlabel("step")
    axes.set_ylabel("loss per trained token")
    if curve.train:
        many = len(curve.train) > 1
        dot = "" if many else "o"
        axes.plot(
            *zip(*curve.train, strict=True), color="#9ecae1", lw=0.9, marker=dot, label="step"
        )
        if many:
            line = smoothed(curve.train)
            axes.plot(*zip(*line, strict=True), color="#08519c", lw=1.8, label="smoothed")
    if curve.held_out:
        axes.plot(
            *zip(*curve.held_out, strict=True),
            color="#d94801",
            lw=1.2,
            marker="o",
            ms=4,
            label="held-out rows",
        )
    if len(curve.sources) <= len(_SOURCE_COLOURS):  # more lines could not be told apart
        for (name, points), colour in zip(curve.sources, _SOURCE_COLOURS, strict=False):
            line = list(points) if curve.held_out else smoothed(points)
            axes.plot(*zip(*line, strict=True), color=colour, lw=1.0, ls="--", label=_plain(name))
    if curve.best is not None:
        step, loss = curve.best
        label = f"best: {loss:.4g} at step {step:,}"
        axes.plot([step], [loss], "*", color="#a50f15", ms=14, label=label)
    if curve.train or curve.held_out:
        axes.legend(frameon=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, color="#e5e5e5", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    untyped: Any = figure
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a title in letters that the font lacks
        untyped.savefig(picture, format="png", metadata={"Software": None})
    try:
        (disk or Disk()).replace_file(path, picture.getvalue())
    except OSError as error:
        raise DiskError(
            f"cannot write the curve: {error.strerror or error}",
            where=str(path),
            remedy="free some space or make the folder writable",
        ) from error


def _plain(name: str) -> str:
    """A legend's text that means itself: a leading underscore hides it, a dollar sign begins a formula."""
    text = name if len(name) <= _LONGEST_NAME else f"...{name[-_LONGEST_NAME:]}"
    return ("\u200b" + text if text.startswith("_") else text).replace("$", r"\$")


def draw_text(curve: Curve, *, width: int = 72, height: int = 12, ascii_only: bool = False) -> str:
    """The curve for a terminal of `width` columns: the smoothed loss as a line, `o` held-out, `*` best.

    In braille dots (2 x 4 to a character), or with `ascii_only` in plain ones.
    """
    if not curve.train and not curve.held_out:
        return f"{curve.title}: no steps yet"
    columns = max(10, width - _LABEL_COLUMNS - 2)
    line = smoothed(curve.train)
    canvas = _Canvas(columns, max(2, height), [*line, *curve.held_out], ascii_only=ascii_only)
    canvas.draw_line(line)
    for point in curve.held_out:
        canvas.mark(point, "o")
    if curve.best is not None:
        canvas.mark(curve.best, "*")
    rows = [curve.title[:width], *canvas.rows()]
    if curve.train:
        rows.append(f"last loss {curve.train[-1][1]:.4g}")
    if curve.best is not None:
        rows.append(f"o held-out rows   * best: {curve.best[1]:.4g} at step {curve.best[0]:,}")
    return "\n".join(rows)


class _Canvas:
    """Dots in a grid of characters, with the axes beside it."""

    def __init__(
        self, columns: int, height: int, points: Sequence[Point], *, ascii_only: bool
    ) -> None:
        self.columns, self.height, self.ascii_only = columns, height, ascii_only
        self.across, self.down = (1, 1) if ascii_only else (2, 4)  # dots of one character
        steps = [step for step, _ in points]
        losses = [loss for _, loss in points]
        self.first, self.last = min(steps), max(steps)
        self.low, self.high = min(losses), max(losses)
        if self.low == self.high:  # a level line stands in the middle
            room = max(abs(self.low) * 0.1, 0.1)
            self.low, self.high = self.low - room, self.high + room
        self.cells = [[0] * columns for _ in range(height)]
        self.marks: dict[tuple[int, int], str] = {}

    def place(self, point: Point) -> tuple[int, int]:
        """(dot column, dot row) of a point; row 0 is the top."""
        step, loss = point
        right, bottom = self.columns * self.across - 1, self.height * self.down - 1
        x = (step - self.first) / (self.last - self.first) if self.last > self.first else 0.0
        y = (self.high - loss) / (self.high - self.low)
        return round(x * right), round(y * bottom)

    def draw_line(self, points: Sequence[Point]) -> None:
        """Dots joined from column to column."""
        before: tuple[int, int] | None = None
        for point in points:
            x, y = self.place(point)
            x0, y0 = before or (x, y)
            length = max(abs(x - x0), abs(y - y0), 1)
            for i in range(length + 1):
                self.dot(round(x0 + (x - x0) * i / length), round(y0 + (y - y0) * i / length))
            before = (x, y)

    def dot(self, x: int, y: int) -> None:
        bit = 1 if self.ascii_only else _DOTS[y % 4][x % 2]
        self.cells[y // self.down][x // self.across] |= bit

    def mark(self, point: Point, sign: str) -> None:
        """A sign that hides the dots of its character."""
        x, y = self.place(point)
        self.marks[y // self.down, x // self.across] = sign

    def rows(self) -> list[str]:
        """The grid, labelled: losses at the left, steps below."""
        bar, corner, flat = ("|", "+", "-") if self.ascii_only else ("│", "└", "─")
        lines: list[str] = []
        for row, cells in enumerate(self.cells):
            label = ""
            if row in (0, self.height - 1, self.height // 2):
                share = row / (self.height - 1)
                label = f"{self.high - share * (self.high - self.low):.4g}"
            text = "".join(self.sign(row, column, cell) for column, cell in enumerate(cells))
            lines.append(f"{label:>{_LABEL_COLUMNS}} {bar}{text}".rstrip())
        lines.append(" " * (_LABEL_COLUMNS + 1) + corner + flat * self.columns)
        begin, end = f"step {self.first:,}", f"{self.last:,}"
        room = max(1, self.columns - len(begin) - len(end))
        lines.append(" " * (_LABEL_COLUMNS + 2) + begin + " " * room + end)
        return lines

    def sign(self, row: int, column: int, cell: int) -> str:
        if (row, column) in self.marks:
            return self.marks[row, column]
        if not cell:
            return " "
        return "." if self.ascii_only else chr(_BRAILLE + cell)
