"""What a command that changes rows says at its end, and the words that such commands share. It changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hone.cli.printable import printable
from hone.errors import ConfigError, Terminated

if TYPE_CHECKING:
    from hone.config.sections import DataSection
    from hone.data.changes import ChangeLedger, ChangeReport, Lines

_LINES_SHOWN: Final = 5
_EXAMPLE_CHARACTERS: Final = 200
_READ_BY = ("data.format", "data.columns", "data.tags")

Force = Annotated[bool, typer.Option("--force", help="Replace outputs that exist already.")]
LedgerFile = Annotated[
    Path | None,
    typer.Option("--ledger", metavar="FILE", help="Where the ledger goes; else <out>.ledger.json."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the ledger as one JSON object.")]


def say(report: ChangeReport, *, as_json: bool) -> None:
    """Print what became of the rows: whole as JSON, or in lines with the first line numbers of each reason."""
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), ensure_ascii=False) + "\n")
        return
    for ledger in report.ledgers:
        for line in _ledger_lines(ledger):
            typer.echo(line)
    for notice in report.notices:
        typer.echo(f"note: {printable(notice)}")
    for file, rows in report.written.items():
        typer.echo(f"wrote {printable(file)}: {rows:,} row{'' if rows == 1 else 's'}")
    typer.echo(f"every line number: {printable(report.ledger_file)}")


@contextlib.contextmanager
def tidied() -> Generator[None]:
    """SIGTERM ends the block as Ctrl-C does: what was half written is removed. Raises Terminated then."""

    def stop(number: int, frame: object) -> None:
        del number, frame
        raise Terminated("terminated; nothing was written", remedy="type the same command again")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read_section(
    words: Sequence[str], flags: dict[str, str | None]
) -> tuple[list[str], DataSection]:
    """The words that are no settings, and how rows are read, from settings such as `data.columns={...}`.

    Raises ConfigError for a setting that has no effect on the reading of rows.
    """
    from hone.config.layers import COMMAND_LINE, resolve

    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    resolved = resolve(environment=os.environ, overrides=overrides, flags=flags)
    for name, origin in resolved.origins.items():
        if origin == COMMAND_LINE and not name.startswith(_READ_BY):
            raise ConfigError(
                f"{name} has no effect here",
                where="command line",
                remedy=f"allowed: {', '.join(_READ_BY)}",
            )
    return [word for word in words if word not in overrides], resolved.config.data


def _ledger_lines(ledger: ChangeLedger) -> Iterator[str]:
    shapes = ", ".join(f"{shape} {count:,}" for shape, count in ledger.shapes.items())
    yield (
        f"{printable(ledger.file)}: read {ledger.read:,} = kept {ledger.kept:,} + "
        f"dropped {ledger.num_dropped:,}{f' ({shapes})' if shapes else ''}"
    )
    for reason, one in ledger.dropped.items():
        yield f"  dropped {_counted(reason, one)}"
        if one.example and one.example != reason:
            yield f"    {_short(one.example)}"
    for reason, one in ledger.repaired.items():
        yield f"  repaired {_counted(reason, one)}"
    for reason, one in ledger.noted.items():
        yield f"  noted {_counted(reason, one)}"
    if ledger.had_bom:
        yield "  the byte order mark at the start was removed"
    if ledger.blank_lines:
        yield f"  {ledger.blank_lines:,} blank line{'' if ledger.blank_lines == 1 else 's'} passed over"


def _counted(reason: str, one: Lines) -> str:
    lines = ", ".join(map(str, one.lines[:_LINES_SHOWN]))
    more = ", ..." if len(one.lines) > _LINES_SHOWN else ""
    noun = "line" if len(one.lines) == 1 else "lines"
    return f"{len(one.lines):,}: {printable(reason)} ({noun} {lines}{more})"


def _short(text: str) -> str:
    text = printable(text.replace("\n", " "))
    return text if len(text) <= _EXAMPLE_CHARACTERS else text[: _EXAMPLE_CHARACTERS - 3] + "..."
