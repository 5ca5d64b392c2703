"""`hone process`: raw rows made ready for training. It parses, calls and prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hone.cli.changed import AsJson, Force, LedgerFile, say, tidied
from hone.errors import ConfigError, nearest

if TYPE_CHECKING:
    from hone.recipes.change import Places

_RECIPES = ("plain", "tau2")
_PLAIN_ONLY = {"max_characters", "out", "ratio", "seed", "system"}
_AGENT_ONLY = {"prompts", "steps", "tools"}
_RAW, _PROCESSED = Path("data/raw"), Path("data/processed")
_STEPS = (
    "fix-arguments, hermes, check-tools, remove-think, system-prompt, merge-turns, "
    "drop-trailing-user, check-turns"
)


def process(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RAW] [OUT]",
            help="A folder or file of raw rows (data/raw); with --recipe tau2 a file and the file to write.",
        ),
    ] = None,
    *,
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="plain, or tau2 for agent conversations.")
    ] = "plain",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where the parts go (data/processed)."),
    ] = None,
    ratio: Annotated[
        str | None,
        typer.Option(metavar="TRAIN/VAL/TEST", help="Shares of a single file (0.7/0.1/0.2)."),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help='System text of rows without one; "" for none.'),
    ] = None,
    max_characters: Annotated[
        int | None,
        typer.Option("--max-characters", min=1, metavar="COUNT", help="Cut longer texts."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Another split.")] = 0,
    tools: Annotated[
        Path | None, typer.Option(metavar="SPEC.json", help="tau2: tools of each domain.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="PROMPTS.json", help="tau2: system prompts.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="STEP,STEP", help=f"tau2: only these of {_STEPS}.")
    ] = None,
    force: Force = False,
    ledger: LedgerFile = None,
    as_json: AsJson = False,
) -> None:
    """Make raw rows ready for training: train, val and test, one shape, every row accounted for.

    Files that are split already stay so; a single file is split. Tools and prompts of agent conversations are
    files of yours; examples/agent shows them.
    """
    if recipe not in _RECIPES:
        raise ConfigError(f"--recipe: no recipe {recipe!r}", remedy=nearest(recipe, _RECIPES))
    is_agent = recipe == "tau2"
    _refuse(context, _PLAIN_ONLY if is_agent else _AGENT_ONLY, recipe)
    places = _places(files or [], out, ledger, force=force, is_agent=is_agent)
    with tidied():
        if is_agent:
            from hone.data.agent.pipeline import STEPS
            from hone.recipes.agent import clean_agent_rows

            wanted = STEPS if steps is None else [one.strip() for one in steps.split(",")]
            report = clean_agent_rows(places, steps=wanted, tools=tools, prompts=prompts)
        else:
            from hone.data.parts import read_shares
            from hone.data.plain_rows import DEFAULT_SYSTEM, Tidying
            from hone.recipes.process import process as run

            tidying = Tidying(DEFAULT_SYSTEM if system is None else system, max_characters)
            shares = None if ratio is None else read_shares(ratio)
            report = run(places, shares=shares, tidying=tidying, seed=seed)
    say(report, as_json=as_json)


def _places(
    files: list[Path], out: Path | None, ledger: Path | None, *, force: bool, is_agent: bool
) -> Places:
    from hone.recipes.change import Places

    if is_agent and len(files) != 2:
        raise ConfigError(
            f"two files are wanted, IN and OUT; found {len(files)}",
            remedy="type: hone process --recipe tau2 IN OUT --tools SPEC.json --prompts PROMPTS.json",
        )
    if is_agent:
        return Places(files[0], files[1], ledger, force)
    if len(files) > 1:
        raise ConfigError(
            "one folder or file of raw rows is wanted", remedy="name the output with --out"
        )
    return Places(files[0] if files else _RAW, out or _PROCESSED, ledger, force)


def _refuse(context: typer.Context, names: set[str], recipe: str) -> None:
    """A flag of the other recipe would do nothing, so it is refused."""
    for name in sorted(names):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = "--" + name.replace("_", "-")
            raise ConfigError(
                f"{flag} has no effect with the recipe {recipe!r}", remedy="leave it out"
            )
