"""`hone style`: a system instruction laid over rows. It parses, calls and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hone.cli.changed import AsJson, Force, LedgerFile, say, tidied

_PROCESSED = Path("data/processed")


def style(
    source: Annotated[
        Path, typer.Argument(metavar="FILE|FOLDER", help="Rows, or a folder of row files.")
    ] = _PROCESSED,
    *,
    text: Annotated[
        str, typer.Option("--style", metavar="TEXT", help='How to answer, e.g. "Be brief."')
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the system text.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PLACE", help="Where it is written; else *_with_style."),
    ] = None,
    force: Force = False,
    ledger: LedgerFile = None,
    as_json: AsJson = False,
) -> None:
    """Put a style before the system instruction of every row, or in its place; it never stacks.

    data/processed becomes data/processed_with_style, with style.json in it.
    """
    from hone.recipes.change import Places
    from hone.recipes.style import style as run
    from hone.recipes.style import styled_place

    places = Places(source, out or styled_place(source), ledger, force)
    with tidied():
        report = run(places, text, mode="replace" if replace else "prepend")
    say(report, as_json=as_json)
