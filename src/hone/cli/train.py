"""`hone train`: words to a configuration, a screen for the events, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hone.cli.curve import curve_text
from hone.cli.inputs import resolve_words, sort_words
from hone.cli.run_flags import (
    BatchSize,
    ConfigFile,
    DeepSpeed,
    Endpoint,
    Epochs,
    Launcher,
    Model,
    Nnodes,
    NodeRank,
    Nproc,
    Output,
    PeakRate,
    Words,
    flags_of,
)
from hone.cli.screen import open_screen
from hone.config.layers import Resolved
from hone.errors import ConfigError, nearest
from hone.runs.folder import RunFolder

if TYPE_CHECKING:
    from hone.recipes.trained import Trained


def train(
    context: typer.Context,
    words: Words = None,
    *,
    model: Model = None,
    epochs: Epochs = None,
    lr: PeakRate = None,
    batch_size: BatchSize = None,
    output: Output = None,
    nproc: Nproc = None,
    nnodes: Nnodes = None,
    node_rank: NodeRank = None,
    rdzv_endpoint: Endpoint = None,
    launcher: Launcher = None,
    deepspeed: DeepSpeed = None,
    config: ConfigFile = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="hone|llamafactory", help="Who trains: LLaMA-Factory where it is installed."
        ),
    ] = "hone",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, even if the run can be resumed.")
    ] = False,
    accept_changes: Annotated[
        bool,
        typer.Option("--accept-changes", help="Resume although settings or data have changed."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line of JSON.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only notices and the result.")
    ] = False,
) -> None:
    """Train a model on your rows; the same command resumes what was begun.

    Any setting can follow as section.key=value, e.g. train.max_steps=100 tuning.lora.r=8; `hone config show`
    lists them all, and `hone help settings` says which source wins.
    """
    flags = flags_of(locals())
    if engine != "hone":
        _train_elsewhere(engine, words or [], config, flags)
        return
    resolved = resolve_words(words or [], config=config, flags=flags)
    refuse_incomplete(resolved, words=words or [])
    command = ["hone", *context.obj]
    with open_screen(as_json=as_json, quiet=quiet) as screen:
        from hone.backends.training import train as run_training

        trained = run_training(
            resolved,
            fresh=fresh,
            accept_changes=accept_changes,
            command=command,
            listeners=[screen],
        )
    if not as_json and not quiet:
        _say_result(trained)


def _train_elsewhere(
    engine: str, words: list[str], config: Path | None, flags: Mapping[str, str | None]
) -> None:
    """Have LLaMA-Factory train, from its own file as it is, or from ours in its language."""
    if engine != "llamafactory":
        raise ConfigError(
            f"--engine: no engine {engine!r}", remedy=nearest(engine, ("hone", "llamafactory"))
        )
    from hone.backends import llamafactory

    found = sort_words(words, config)
    order = None
    if found.config is not None:
        order = llamafactory.order_of_theirs(found.config, found.overrides)
        typed = [name for name, value in flags.items() if value is not None]
        if order is not None and (typed or found.data is not None):
            raise ConfigError(
                f"{(typed or ['rows'])[0]} cannot be laid over LLaMA-Factory's own file",
                where="command line",
                remedy="write its own key: model_name_or_path=..., num_train_epochs=..., dataset=...",
            )
    if order is None:
        resolved = resolve_words(words, config=config, flags=flags)
        refuse_incomplete(resolved, words=words)
        order = llamafactory.order_of_ours(resolved)
    folder = llamafactory.train(order)
    typer.echo(f"LLaMA-Factory's run lies in {folder}")


def refuse_incomplete(resolved: Resolved, *, words: list[str], verb: str = "train") -> None:
    """Raise ConfigError, with what to type, where no rows or no model were named."""
    typed = shlex.join(words)
    missing = [
        (
            resolved.config.data.path or resolved.config.data.sources,
            "no rows to train on",
            "DATA.jsonl",
        ),
        (resolved.config.model.name, "no model to start from", "--model FOLDER_OR_HUB_ID"),
    ]
    absent = [(what, example) for value, what, example in missing if not value]
    if absent:
        said = " ".join([f"hone {verb}", *([typed] if typed else []), *(ex for _, ex in absent)])
        raise ConfigError(" and ".join(what for what, _ in absent), remedy=f"type: {said}")


def _say_result(trained: Trained) -> None:
    """The curve, and what to type next."""
    folder = shlex.quote(str(trained.folder))
    typer.echo(curve_text(RunFolder(trained.folder)))
    typer.echo(f"next: hone chat {folder}")
    typer.echo(f"      hone runs show {folder}")
