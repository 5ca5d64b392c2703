"""`hone new`: a folder for a project. It parses, calls and prints."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from hone.cli.printable import printable


def new(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New, or without these files.")],
) -> None:
    """Make a project: Makefile, configs/, workflows/, data/raw/. Nothing that is there is overwritten."""
    from hone.recipes.new_project import new_project

    made = new_project(folder)
    print(printable(f"{len(made.written)} files in {made.folder}. What to type next:"))
    print(printable(f"  cd {shlex.quote(str(made.folder))}"))
    print(
        "  cp YOUR_ROWS.jsonl data/raw/rows.jsonl    # or: workflows/quick_start.sh, with sample rows"
    )
    print("  make process")
    print("  make train-bnb-tb MODEL_NAME=YOUR_MODEL    # `make` alone lists the targets")
