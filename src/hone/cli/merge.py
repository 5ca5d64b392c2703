"""`hone merge`: an adapter taken into its base's weights. It parses, calls and prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hone.cli.changed import tidied
from hone.cli.printable import printable
from hone.errors import ConfigError, nearest

_DTYPES = ("bf16", "fp16", "fp32")

Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE", help="bf16, fp16 or fp32; else the type that the base is kept in."
    ),
]


def merge(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, or an adapter's folder.")],
    *,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Where; else RUN/merged.")
    ] = None,
    dtype: Dtype = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Merge an adapter into its unquantised base: a model folder that plain transformers loads.

    What is written is read again and compared with the adapter on its base, on the run's own rows; where they part
    nothing is left. A folder is never overwritten. It takes 4 bytes of memory a weight, or the base's own 2 where
    there are no 4.
    """
    check_dtype(dtype)
    from hone.recipes.merge import merge as run_merge

    with tidied():
        merged = run_merge(run, to, dtype=dtype)
    if as_json:
        sys.stdout.write(json.dumps(merged.to_json(), ensure_ascii=False) + "\n")
        return
    typer.echo(f"compared on {printable(merged.probes)}: {merged.likeness.sentence()}")
    for notice in merged.notices:
        typer.echo(f"note: {printable(notice)}")
    typer.echo(f"wrote {printable(str(merged.folder))} ({merged.dtype}, {len(merged.files)} files)")


def check_dtype(dtype: str | None) -> None:
    """Raise ConfigError for a type of numbers that is not offered."""
    if dtype is not None and dtype not in _DTYPES:
        raise ConfigError(f"--dtype: no type {dtype!r}", remedy=nearest(dtype, _DTYPES))
