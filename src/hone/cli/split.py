"""`hone split`: rows laid into train, val and test. It parses, calls and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hone.cli.changed import AsJson, Force, LedgerFile, say, tidied
from hone.errors import ConfigError


def split(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of rows, JSONL or JSON.")],
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where the parts are written.")
    ],
    ratio: Annotated[
        str | None, typer.Option(metavar="TRAIN/VAL/TEST", help="Shares, e.g. 0.9/0.05/0.05.")
    ] = None,
    train: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of train, 0 to 1.")
    ] = None,
    val: Annotated[float | None, typer.Option(metavar="SHARE", help="Share of val.")] = None,
    test: Annotated[float | None, typer.Option(metavar="SHARE", help="Share of test.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option("--group-by", metavar="COLUMN", help="Rows equal in it stay together."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Another split.")] = 0,
    force: Force = False,
    ledger: LedgerFile = None,
    as_json: AsJson = False,
) -> None:
    """Split a file of rows by what they say: stable under added rows, equal rows on one side.

    Rows are copied as they stand. The default is 0.9/0.05/0.05.
    """
    from hone.data.parts import check_shares, read_shares
    from hone.recipes.change import Places
    from hone.recipes.split import split as run

    given = {"train": train, "val": val, "test": test}
    shares = {part: share for part, share in given.items() if share is not None}
    if ratio is not None and shares:
        raise ConfigError(
            "--ratio and single shares exclude each other", remedy="give --ratio alone"
        )
    wanted = check_shares(shares) if shares else read_shares(ratio or "0.9/0.05/0.05")
    places = Places(file, out, ledger, force)
    with tidied():
        report = run(places, wanted, group_by=group_by, seed=seed)
    say(report, as_json=as_json)
