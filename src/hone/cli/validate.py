"""`hone validate`: what is wrong with rows, on a terminal or as JSON. It decides nothing about rows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hone.cli.changed import Force, LedgerFile, say, tidied
from hone.cli.printable import printable
from hone.errors import ConfigError

if TYPE_CHECKING:
    from hone.config.sections import Config
    from hone.data.validation.verdict import Verdict
    from hone.recipes.survey import Report

_SHOWN: Final = 100
_DATA_CODE: Final = 3

All = Annotated[
    bool, typer.Option("--all", help="Print every error, not the first hundred of a file.")
]
WithReport = Annotated[
    bool, typer.Option("--report", help="Tell the whole story of the rows as well.")
]
Dedupe = Annotated[
    bool, typer.Option("--dedupe", help="With --fix: leave out rows that stand twice.")
]


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
    every: All = False,
    report: WithReport = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|HUB_ID", help="Whose tokens --report counts."),
    ] = None,
    max_length: Annotated[
        str | None,
        typer.Option(metavar="TOKENS", help="Limit of a row for --report; else the model's."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Held-out rows that --report looks for among these."),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write the rows that can be repaired, repaired."),
    ] = None,
    dedupe: Dedupe = False,
    force: Force = False,
    ledger: LedgerFile = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with every error.")
    ] = False,
) -> int:
    """Say what is wrong with each row, by line; exit code 3 where anything is.

    --report adds lengths, twins and what else to look at, with a line of advice each. --fix writes beside, never in
    place, and lists every repair and every row that was left out.
    """
    _check_flags(report, fix, {"--model": model, "--max-length": max_length, "--against": against})
    if fix is None and (dedupe or force or ledger):
        raise ConfigError("--dedupe, --force and --ledger belong to --fix", remedy="add --fix OUT")
    files, config = _read(words, {"model.name": model, "data.max_length": max_length})
    if (report or fix is not None) and len(files) != 1:
        raise ConfigError(
            f"one file is wanted here; found {len(files)}",
            remedy="type: hone validate FILE --report",
        )
    if fix is not None:
        _fix(
            config, Path(files[0]), fix, ledger, rules, force=force, dedupe=dedupe, as_json=as_json
        )
        return 0
    from hone.recipes.validate import validate as run

    keep = None if every or as_json else _SHOWN
    verdicts = run(config.data, files, _say, rules=rules, keep=keep)
    story = _story(config, verdicts[0], files[0], against, rules) if report else None
    if as_json:
        _put(_as_json(verdicts) | ({} if story is None else {"report": story.to_json()}))
    else:
        for line in _lines(verdicts):
            sys.stdout.write(line + "\n")
        if story is not None:
            from hone.cli.survey import show

            show(story)
    return 0 if all(one.is_valid for one in verdicts) else _DATA_CODE


def _check_flags(report: bool, fix: Path | None, flags: dict[str, str | None]) -> None:
    if report and fix is not None:
        raise ConfigError("--report and --fix are two commands", remedy="type one after the other")
    given = [name for name, value in flags.items() if value is not None]
    if given and not report:
        raise ConfigError(f"{given[0]} belongs to --report", remedy="add --report")


def _fix(
    config: Config,
    source: Path,
    out: Path,
    ledger: Path | None,
    rules: str,
    *,
    force: bool,
    dedupe: bool,
    as_json: bool,
) -> None:
    from hone.recipes.change import Places
    from hone.recipes.repair import repair

    places = Places(source, out, ledger, force)
    with tidied():
        done = repair(config.data, places, _say, rules=rules, dedupe=dedupe)
    say(done, as_json=as_json)


def _story(
    config: Config, verdict: Verdict, file: str, against: str | None, rules: str
) -> Report | None:
    """The survey; None where the verdict says already that the file itself cannot be read."""
    if verdict.rows == 0:
        return None
    from hone.recipes.survey import survey

    return survey(config, file, _say, against=against, rules=rules)


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
