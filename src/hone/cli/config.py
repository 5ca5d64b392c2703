"""`hone config show` and `hone schema`: the configuration in force, and what a configuration can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hone.cli.inputs import WORDS_HELP, WORDS_METAVAR, resolve_words
from hone.config.schema import json_schema
from hone.config.write import to_yaml

app = typer.Typer(rich_markup_mode=None, help="Show the configuration in force.")


@app.callback()
def _group() -> None:
    """The configuration in force."""


@app.command("show")
def show(
    words: Annotated[
        list[str] | None, typer.Argument(metavar=WORDS_METAVAR, help=WORDS_HELP)
    ] = None,
    *,
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration file, YAML or JSON.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One object: `config` and `origins`.")
    ] = False,
) -> None:
    """Print every setting, and where its value came from."""
    resolved = resolve_words(words or [], config=config, flags={})
    if as_json:
        shown = {"config": resolved.config.model_dump(mode="json"), "origins": resolved.origins}
        typer.echo(json.dumps(shown, ensure_ascii=False))
    else:
        typer.echo(to_yaml(resolved.config, origins=resolved.origins), nl=False)


def schema() -> None:
    """Print the JSON Schema of a configuration file, for editors and programs."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
