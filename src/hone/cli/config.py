"""`hone config show` and `convert`, `hone schema`: the configuration in force, others' in ours, what one can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hone.cli.inputs import WORDS_HELP, WORDS_METAVAR, resolve_words
from hone.config.dialects.choice import DIALECTS, dialect_named
from hone.config.fields import nearest_setting, settings
from hone.config.layers import idle_settings
from hone.config.schema import json_schema
from hone.config.write import to_yaml
from hone.errors import ConfigError, DiskError

app = typer.Typer(
    rich_markup_mode=None, help="Show the configuration in force; convert another system's."
)
_LANGUAGES = ", ".join(one.name for one in DIALECTS)


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


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(metavar="SETTING", help="Its dotted name.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar=WORDS_METAVAR, help=WORDS_HELP)
    ] = None,
) -> None:
    """Print the value of one setting, for scripts: text as it is, anything else as JSON."""
    if name not in settings():
        raise ConfigError(f"unknown setting {name!r}", remedy=nearest_setting(name))
    resolved = resolve_words(words or [], flags={})
    value: object = resolved.config
    for key in name.split("."):
        value = getattr(value, key)
    typer.echo(value if isinstance(value, str) else json.dumps(value))


@app.command("convert")
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The other system's file.")],
    *,
    language: Annotated[str, typer.Option("--from", metavar="SYSTEM", help=f"{_LANGUAGES}.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Where to write; else it is shown.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Write another system's configuration in Hone's language, each setting with where it was said.

    A key that has no counterpart is an error with the reason and what is nearest; one whose object is absent here
    is told on stderr. The result trains as the file itself would.
    """
    dialect = dialect_named(language)
    resolved = resolve_words([], config=file, flags={}, dialect=dialect)
    for sentence in idle_settings(resolved):
        typer.echo(f"note: {sentence}", err=True)
    said = {name: origin for name, origin in resolved.origins.items() if origin != "default"}
    text = f"# {dialect.language}: {file}\n{to_yaml(resolved.config, origins=said)}"
    if to is None:
        typer.echo(text, nl=False)
        return
    if to.exists() and not force:
        raise ConfigError(
            "the file exists already", where=str(to), remedy="add --force, or name another"
        )
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DiskError(f"cannot write: {error.strerror}", where=str(to)) from error
    typer.echo(f"wrote {to}: hone train {to}")


def schema() -> None:
    """Print the JSON Schema of a configuration file, for editors and programs."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
