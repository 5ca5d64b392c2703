"""The survey of a file of rows as tables on a terminal. It counts nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hone.cli.printable import printable
from hone.cli.streams import look_of

if TYPE_CHECKING:
    from hone.recipes.survey import Report

_BAR: Final = 30
_WIDTH: Final = 100  # where the output is no terminal


def show(story: Report) -> None:
    """Print the report for this terminal."""
    colour = look_of(sys.stdout, os.environ).colour
    is_terminal = sys.stdout.isatty()
    console = Console(
        file=sys.stdout,
        no_color=not colour,
        force_terminal=colour,
        highlight=False,
        width=None if is_terminal else _WIDTH,
    )
    for table in (_rows(story), _lengths(story)):
        console.print(table)
    if story.findings:
        console.print(_findings(story))
    else:
        console.print("Nothing else to look at.")
    for notice in story.notices:
        console.print(f"note: {_safe(notice)}")


def _rows(story: Report) -> Table:
    table = Table("", "", box=SIMPLE, show_header=False, title="Rows", title_justify="left")
    share = story.trained / story.total if story.total else 0.0
    table.add_row("can be used", f"{story.rows:,}")
    table.add_row("shapes", _listed(story.shapes))
    if story.roles:
        table.add_row("messages by role", _listed(story.roles))
        table.add_row("messages in a row", _spread(story.turns))
    table.add_row(f"{story.unit} in a row", _spread(story.lengths))
    table.add_row("trained", f"{story.trained:,} of {story.total:,} {story.unit} ({share:.1%})")
    if story.unit == "tokens":
        limit = (
            "none known; --max-length sets one"
            if story.limit is None
            else f"{story.limit:,} tokens; cut to it, {story.lost:,} trained tokens are lost"
        )
        table.add_row("limit", limit)
    if story.against is not None:
        unusable = story.against["unusable_rows"]
        told = f"{story.against['rows']:,} rows of {_safe(str(story.against['file']))}"
        table.add_row("compared with", told + (f", {unusable:,} unusable" if unusable else ""))
    return table


def _lengths(story: Report) -> Table:
    table = Table(box=SIMPLE, title=f"Length in {story.unit}", title_justify="left")
    table.add_column("up to", justify="right")
    table.add_column("rows", justify="right")
    table.add_column("")
    bins = story.lengths["bins"]
    most = max((one["rows"] for one in bins), default=1)
    bar = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    for one in bins:
        table.add_row(
            f"{one['up_to']:,}", f"{one['rows']:,}", bar * max(1, _BAR * one["rows"] // most)
        )
    return table


def _findings(story: Report) -> Table:
    table = Table(box=SIMPLE, title="To look at", title_justify="left")
    table.add_column("rows", justify="right")
    table.add_column("what, and what to do")
    table.add_column("first lines")
    for one in story.findings:
        lines = ", ".join(map(str, one["lines"])) + (
            ", …" if one["rows"] > len(one["lines"]) > 0 else ""
        )
        what = f"{_safe(one['what'])}\n→ {_safe(one['advice'])}"
        table.add_row(f"{one['rows']:,}", what, lines)
    return table


def _listed(counts: dict[str, int]) -> str:
    found = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{_safe(name)} {count:,}" for name, count in found)


def _spread(told: dict[str, Any]) -> str:
    if not told["count"]:
        return "none"
    least, median, high, most = (told[key] for key in ("least", "median", "p95", "most"))
    return f"{least:,} to {most:,}, half up to {median:,}, 95 of 100 up to {high:,}"


def _safe(text: str) -> str:
    return escape(printable(text))
