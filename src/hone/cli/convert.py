"""`hone convert`: rows written in another shape. It parses, calls and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hone.cli.changed import AsJson, Force, LedgerFile, read_section, say, tidied
from hone.errors import ConfigError


def convert(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="IN OUT [key=value]",
            help="A file of rows, the file to write (.jsonl or .json), and settings such as "
            "'data.columns={user: question, assistant: answer}'.",
        ),
    ],
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="SHAPE",
            help="messages, prompt-completion, turns, alpaca, sharegpt, conversations or text.",
        ),
    ],
    shape: Annotated[
        str | None,
        typer.Option("--format", metavar="SHAPE", help="Shape of IN, where its keys do not tell."),
    ] = None,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Leave out what the new shape cannot say, counted.")
    ] = False,
    force: Force = False,
    ledger: LedgerFile = None,
    as_json: AsJson = False,
) -> None:
    """Write the rows of a file in another shape; what became of each is counted.

    A row that the new shape cannot say whole is dropped with the reason, unless --lossy. Other columns are
    carried along.
    """
    files, section = read_section(words, {"data.format": shape})
    if len(files) != 2:
        raise ConfigError(
            f"two files are wanted, IN and OUT; found {len(files)}",
            remedy="type: hone convert IN.jsonl OUT.jsonl --to messages",
        )
    from hone.recipes.change import Places
    from hone.recipes.convert import convert as run

    places = Places(Path(files[0]), Path(files[1]), ledger, force)
    with tidied():
        report = run(section, places, to=to, lossy=lossy)
    say(report, as_json=as_json)
