"""`hone validate`: what is wrong with rows, on a terminal or as JSON. It decides nothing about rows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hone.cli.printable import printable
from hone.errors import ConfigError

if TYPE_CHECKING:
    from hone.config.sections import Config
    from hone.data.validation.verdict import Verdict

_SHOWN: Final = 100
_DATA_CODE: Final = 3


def validate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE... [key=value]",
            help="Files, folders or hub ids of rows, and settings of data such as data.format=sharegpt.",
        ),
    ],
    *,
    rules: Annotated[
        str,
        typer.Option(
            metavar="full|first",
            help="first: a conversation ends with a reply. full: each message also says something.",
        ),
    ] = "full",
    every: Annotated[
        bool, typer.Option("--all", help="Print every error, not the first hundred of a file.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with every error.")
    ] = False,
) -> int:
    """Say what is wrong with each row, by line; exit code 3 where anything is."""
    files, config = _read(words, {})
    from hone.recipes.validate import validate as run

    keep = None if every or as_json else _SHOWN
    verdicts = run(config.data, files, _say, rules=rules, keep=keep)
    if as_json:
        _put(_as_json(verdicts))
    else:
        for line in _lines(verdicts):
            sys.stdout.write(line + "\n")
    return 0 if all(one.is_valid for one in verdicts) else _DATA_CODE


def _read(words: Sequence[str], flags: dict[str, str | None]) -> tuple[list[str], Config]:
    """The words that are no settings, and the configuration that the others and the flags give."""
    from hone.config.layers import COMMAND_LINE, resolve

    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    resolved = resolve(environment=os.environ, overrides=overrides, flags=flags)
    for name, origin in resolved.origins.items():
        if origin == COMMAND_LINE and not name.startswith(("data.", "model.")):
            raise ConfigError(
                f"{name} has no effect here",
                where="command line",
                remedy="allowed: data.…, model.…",
            )
    return [word for word in words if word not in overrides], resolved.config


def _say(event: str, about: dict[str, Any]) -> None:
    if event == "notice":
        print(f"note: {printable(str(about['message']))}", file=sys.stderr)


def _lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for one in verdicts:
        head = f"{printable(one.name)}: " if len(verdicts) > 1 else ""
        if one.is_valid:
            yield f"{head}Valid! {one.rows} rows"
            continue
        yield f"{head}{one.errors} error(s):"
        for finding in one.findings:
            place = f"Line {finding.line}" if finding.line else "File"
            yield f"  {place}: {printable(finding.sentence())}"
        left = one.errors - len(one.findings)
        if left:
            yield f"  and {left} more; --all prints every one"


def _as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """One verdict as it is; several as a list beside their sum."""
    told = [one.to_json() for one in verdicts]
    if len(told) == 1:
        return told[0]
    return {
        "valid": all(one.is_valid for one in verdicts),
        "rows": sum(one.rows for one in verdicts),
        "num_errors": sum(one.errors for one in verdicts),
        "files": told,
    }


def _put(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
