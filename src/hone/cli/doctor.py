"""`hone doctor`: what helps or hinders a training here, line by line, or as JSON. It looks at nothing itself."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Final

import typer

from hone.cli.printable import printable
from hone.cli.streams import look_of

_COLOURS: Final = {"ok": "\x1b[32m", "warning": "\x1b[33m", "problem": "\x1b[31m"}
_PLAIN: Final = "\x1b[0m"
_PROBLEM_CODE: Final = 4
_WIDTH: Final = 100  # where the output is no terminal
_NAME: Final = 11
_STATE: Final = 9


def doctor(
    topics: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TOPIC...]",
            help="Only these: python, packages, processor, memory, gpu, disk, hub, terminal.",
        ),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where runs will lie, to look at its disk.")
    ] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Look at this machine and this installation: versions, processor, memory and who holds it, cards, disk, token.

    It changes nothing, needs no GPU, and says no secret. Exit code 4 where something would keep training from running.
    """
    from hone.recipes.doctor import examine

    found = examine(tuple(topics or ()), output=output)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return _PROBLEM_CODE if found.worst == "problem" else 0
    look = look_of(sys.stdout, os.environ)
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if sys.stdout.isatty() else _WIDTH
    for check in found.checks:
        colour = _COLOURS[check.state] if look.colour else ""
        plain = _PLAIN if look.colour else ""
        text = printable(check.says)
        for number, line in enumerate(_wrapped(text, width)):
            state = f"{colour}{check.state:<{_STATE}}{plain}" if number == 0 else " " * _STATE
            name = f"{check.name:<{_NAME}}" if number == 0 else " " * _NAME
            typer.echo(f"{state}{name} {line}".rstrip())
        if check.remedy is not None:
            for line in _wrapped(f"-> {printable(check.remedy)}", width):
                typer.echo(" " * (_STATE + _NAME + 1) + line)
    typer.echo(_sum(found.worst, len(found.checks)))
    return _PROBLEM_CODE if found.worst == "problem" else 0


def _wrapped(text: str, width: int) -> list[str]:
    room = max(20, width - _STATE - _NAME - 1)
    return textwrap.wrap(text, room, break_on_hyphens=False) or [""]


def _sum(worst: str, count: int) -> str:
    if worst == "ok":
        return f"all {count} are well"
    return (
        "something would keep training from running" if worst == "problem" else "training can run"
    )
