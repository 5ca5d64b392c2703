"""`hone runs`: list, show and compare run folders. It prints what `hone.runs` reads."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from hone.cli.curve import curve_text
from hone.cli.lines import bytes_text, describe, duration_text, loss_text, sample_lines
from hone.errors import ConfigError, HoneError, RemoteError
from hone.runs.events import Event
from hone.runs.folder import find_runs
from hone.runs.summary import Difference, Summary, differences, find_run, summarize
from hone.runs.trackers.choice import PACKAGES, check_installed
from hone.runs.tracking import Tracking

app = typer.Typer(rich_markup_mode=None, help="List, show, compare and track runs.")

Root = Annotated[Path, typer.Option("--root", metavar="FOLDER", help="Where the runs lie.")]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Name of a run in the root, or its folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_RUNS = Path("runs")
_LONGEST_VALUE = 40  # characters
_PATIENCE_SECONDS = 3600.0  # for trackers that are told of a run afterwards


@app.command("list")
def list_runs(*, root: Root = _RUNS, as_json: AsJson = False) -> None:
    """List the runs in a folder, the newest last."""
    found: list[Summary] = []
    damaged: list[tuple[str, HoneError]] = []
    for folder in find_runs(root):
        try:
            found.append(summarize(folder))
        except HoneError as error:
            damaged.append((folder.name, error))
    found.sort(key=lambda run: run.began or 0.0)
    if as_json:
        told = {
            "runs": [run.to_json() for run in found],
            "damaged": [{"name": name, "error": error.what} for name, error in damaged],
        }
        typer.echo(json.dumps(told))
        return
    if not found and not damaged:
        typer.echo(f"no runs in {root}; `hone train` makes one")
        return
    header = ["RUN", "STATE", "STEP", "LOSS", "HELD-OUT", "TOKENS", "TIME", "BEGAN"]
    _print_columns([header, *(_row(run) for run in found)])
    for name, error in damaged:
        typer.echo(f"{name}: cannot be read: {error.what}")


@app.command("show")
def show(run: Run, *, root: Root = _RUNS, as_json: AsJson = False) -> None:
    """Show one run: where it stands, what it cost, what it noticed, its curve."""
    folder = find_run(run, root=root)
    summary = summarize(folder)
    if as_json:
        told = {**summary.to_json(), "config": (folder.read_identity() or {}).get("config")}
        typer.echo(json.dumps(told))
        return
    _print_columns([[name, value] for name, value in _details(summary)])
    for notice in summary.notices:
        typer.echo(f"note: {notice}")
    if summary.samples:
        typer.echo(f"samples after step {summary.sampled_step}:")
        for line in sample_lines(summary.samples):
            typer.echo(line)
    typer.echo(curve_text(folder))


@app.command("compare")
def compare(first: Run, second: Run, *, root: Root = _RUNS, as_json: AsJson = False) -> None:
    """Compare two runs: settings that differ, loss, tokens, seconds."""
    folders = [find_run(name, root=root) for name in (first, second)]
    summaries = [summarize(folder) for folder in folders]
    other = differences(folders[0], folders[1])
    if as_json:
        told = {
            "runs": [summary.to_json() for summary in summaries],
            "differences": [asdict(difference) for difference in other],
        }
        typer.echo(json.dumps(told))
        return
    details = [dict(_details(summary)) for summary in summaries]
    rows = [["", *(summary.name for summary in summaries)]]
    names = dict.fromkeys([*details[0], *details[1]])
    rows += [[name, *(each.get(name, "-") for each in details)] for name in names]
    _print_columns(rows)
    typer.echo("")
    if other:
        _print_columns([["SETTING", *(s.name for s in summaries)], *(_texts(d) for d in other)])
    else:
        typer.echo("no setting differs")


@app.command("track")
def track(
    run: Run,
    trackers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TRACKER]...", help="Who is told. Left out: the run's own trackers."
        ),
    ] = None,
    *,
    root: Root = _RUNS,
) -> None:
    """Tell trackers of a run that is over: what they missed of it, or all of it to new ones."""
    folder = find_run(run, root=root)
    config = cast("dict[str, Any]", (folder.read_identity() or {}).get("config") or {})
    chosen = trackers or cast("list[str]", config.get("output", {}).get("trackers") or [])
    if not chosen:
        raise ConfigError(
            "the run has no trackers of its own", remedy=f"name some: {', '.join(PACKAGES)}"
        )
    check_installed(chosen)
    failed: list[str] = []

    def say(event: str, /, **fields: object) -> None:
        if fields.get("code") == "tracker-failed":
            failed.append(str(fields["message"]))
        elif (text := describe(Event(event, time.time(), fields))) is not None:
            typer.echo(text)

    with folder.lock(), Tracking(folder, chosen, say, grace_seconds=_PATIENCE_SECONDS):
        pass
    if failed:
        raise RemoteError("; ".join(failed), remedy="the same command sends what is still missing")


def _row(run: Summary) -> list[str]:
    began = "" if run.began is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(run.began))
    return [
        run.name,
        run.state,
        _steps(run),
        _loss(run.loss),
        _loss(run.held_out_loss),
        f"{run.tokens:,}",
        duration_text(run.seconds),
        began,
    ]


def _details(run: Summary) -> Iterable[tuple[str, str]]:
    yield "folder", run.path
    yield "state", run.state
    yield "model", run.model or "-"
    yield "data", run.data or "-"
    yield "steps", _steps(run)
    yield "loss", _loss(run.loss)
    yield "held-out loss", _loss(run.held_out_loss)
    for source, loss in run.loss_by_source.items():
        yield f"recent loss of {source}", _loss(loss)
    for source, loss in run.held_out_by_source.items():
        yield f"held-out loss of {source}", _loss(loss)
    yield "tokens", f"{run.tokens:,}"
    yield "trained tokens", f"{run.trained_tokens:,}"
    yield "saved by sharing", f"{1 - run.computed_tokens / run.tokens:.0%}" if run.tokens else "-"
    yield "time in steps", duration_text(run.seconds)
    yield "tokens/s", _rate(run.tokens, run)
    yield "trained tokens/s", _rate(run.trained_tokens, run)
    yield "computed tokens/s", _rate(run.computed_tokens, run)
    yield "MFU", "-" if run.utilisation is None else f"{run.utilisation:.0%}"
    yield "ranks", f"{run.ranks} ({run.strategy})" if run.ranks > 1 else "1"
    yield "peak memory", bytes_text(run.peak_memory_bytes) if run.peak_memory_bytes else "-"


def _rate(tokens: int, run: Summary) -> str:
    return f"{tokens / run.seconds:,.0f}" if run.seconds else "-"


def _steps(run: Summary) -> str:
    return str(run.step) if run.steps is None else f"{run.step}/{run.steps}"


def _loss(loss: float | None) -> str:
    return "-" if loss is None else loss_text(loss)


def _texts(difference: Difference) -> list[str]:
    values = (json.dumps(value) for value in (difference.first, difference.second))
    short = (v if len(v) <= _LONGEST_VALUE else f"{v[: _LONGEST_VALUE - 3]}..." for v in values)
    return [difference.name, *short]


def _print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Rows in aligned columns, two spaces between them."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
