"""`hone skills`: what coding assistants read about Hone. It parses, calls and prints."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hone.cli.printable import printable

app = typer.Typer(rich_markup_mode=None, help="Teach coding assistants to use Hone.")


class Assistant(StrEnum):
    """Whose folder the skill goes into."""

    all = "all"
    claude = "claude"
    agents = "agents"


@app.callback()
def _group() -> None:
    """Skills: folders that coding assistants read."""


@app.command("install")
def install(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The project's folder; else this one.")
    ] = Path(),
    *,
    assistant: Annotated[
        Assistant,
        typer.Option(help="claude: .claude/skills. agents: .agents/skills. all: both."),
    ] = Assistant.all,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that were changed since.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the skill train-sft: how an assistant sets up a training by `hone wizard --json`.

    A file that somebody changed is replaced only with --force; without it nothing is written then.
    """
    from hone.wizard.skill import PLACES
    from hone.wizard.skill import install as run

    chosen = list(PLACES) if assistant is Assistant.all else [assistant.value]
    placed = run(folder, chosen, force=force)
    if as_json:
        told = [{"file": str(one.path), "fate": one.fate} for one in placed]
        typer.echo(json.dumps({"event": "result", "files": told}))
        return
    for one in placed:
        typer.echo(f"{one.fate:<9}  {printable(str(one.path))}")
