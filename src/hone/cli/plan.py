"""`hone plan`: what a run will take, on a terminal or as JSON. It computes nothing."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hone.cli.inputs import resolve_words
from hone.cli.lines import bytes_text, duration_text
from hone.cli.printable import printable
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
from hone.cli.streams import Look, look_of
from hone.cli.train import refuse_incomplete

if TYPE_CHECKING:
    from hone.recipes.advice import Change
    from hone.recipes.plan import RunPlan

_NO_ROOM_CODE: Final = 5
_WIDTH: Final = 100  # where the output is no terminal
_NARROW: Final = 64
_NAME: Final = 12
_RED, _GREEN, _DIM, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[2m", "\x1b[0m"


def plan(
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
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="CARD[:COUNT]", help="Plan for these cards of a machine: h100:8, l40s, t4."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Say what a run will take before it is begun: memory by part, steps, tokens, time, disk.

    Takes the words of `hone train`, ranks and strategy among them. Nothing is loaded and nothing is begun. Exit code 5 where it would not fit; then
    what to change is said, ready to paste.
    """
    flags = flags_of(locals())
    resolved = resolve_words(words or [], config=config, flags=flags)
    refuse_incomplete(resolved, words=words or [], verb="plan")
    from hone.recipes.advice import advise
    from hone.recipes.plan import make_plan

    notices: list[str] = []

    def say(event: str, /, **about: Any) -> None:
        if event == "notice":
            notices.append(str(about["message"]))

    made = make_plan(resolved.config, say, gpu=gpu)
    changes = advise(made)
    if as_json:
        told = made.to_json() | {"changes": [one.to_json() for one in changes], "notices": notices}
        typer.echo(json.dumps(told))
    else:
        page = _Page(made, changes, notices, look_of(sys.stdout, os.environ))
        for line in page.lines(context.obj or []):
            typer.echo(line)
    return 0 if made.fits else _NO_ROOM_CODE


class _Page:
    """The plan in lines, for one width and one look."""

    def __init__(
        self, plan: RunPlan, changes: Sequence[Change], notices: Sequence[str], look: Look
    ) -> None:
        self.plan = plan
        self.changes = changes
        self.notices = notices
        self.look = look
        terminal = shutil.get_terminal_size((_WIDTH, 24)).columns
        self.width = max(32, min(terminal, _WIDTH) if sys.stdout.isatty() else _WIDTH)

    def lines(self, typed: Sequence[str]) -> Iterator[str]:
        """All of the page."""
        yield from self._head()
        yield ""
        yield from self._memory()
        yield ""
        for name, text in self._facts():
            yield from self._item(name, text)
        for notice in self.notices:
            yield from self._wrapped(f"note: {notice}", "  ")
        yield ""
        yield from self._ending(typed)

    def _head(self) -> Iterator[str]:
        plan = self.plan
        free, peak = plan.memory.free_bytes, plan.memory.peak_bytes
        verdict = "fits" if plan.memory.fits else "would not fit"
        each = " on each" if plan.target.count > 1 else ""
        said = f"{bytes_text(peak)}{each} at the fullest, of {bytes_text(free)}"
        said += " free" if plan.target.is_here else ""
        said += f", of which {plan.memory.keep_free:.0%} are left alone"
        colour = _GREEN if plan.memory.fits else _RED
        method = plan.config.tuning.method
        if method == "lora":
            method += f" (r {plan.config.tuning.lora.r})"
        name = printable(plan.config.model.name.rstrip("/").rsplit("/", 1)[-1])
        head = f"{name}, {method}, {plan.precision} ({plan.precision_says}), on {plan.target}"
        yield from self._wrapped(head, "")
        yield from self._wrapped(f"{self._paint(verdict, colour)}: {said}", "  ")

    def _memory(self) -> Iterator[str]:
        memory = self.plan.memory
        wide = self.width >= _NARROW
        longest = max(part.num_bytes for part in memory.parts)
        bar = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
        cells = min(24, self.width - 58) if wide else 0
        for part in memory.parts:
            size = bytes_text(part.num_bytes)
            told = f"  {part.name:<21} {size:>9}"
            if wide:
                drawn = bar * round(cells * part.num_bytes / longest)
                told += f"  {drawn:<{max(0, cells)}} {self._paint(part.says, _DIM)}"
            yield told.rstrip()
        for moment in memory.moments:
            if moment.num_bytes == memory.peak_bytes:
                yield f"  {f'fullest: {moment.name}':<21} {bytes_text(moment.num_bytes):>9}"
                break

    def _facts(self) -> Iterator[tuple[str, str]]:
        plan, course, figures = self.plan, self.plan.course, self.plan.figures
        parts = plan.shape.by_part()
        listed = ", ".join(f"{name} {_count(n)}" for name, n in parts.items() if n)
        total = plan.shape.parameters + plan.subject.beside
        trained = plan.subject.trained_numbers
        yield "parameters", f"{_count(total)}, {_count(trained)} trained ({trained / total:.1%})"
        yield "", listed
        about = "" if plan.is_exact else "about "
        per_step = f"{plan.config.train.batch_size} rows a step"
        known = f", {figures.ready:,} of them prepared" if figures.is_estimate else ""
        yield "rows", f"{figures.rows:,}{known}; the longest has {figures.longest:,} tokens"
        epochs = course.steps / course.steps_per_epoch
        yield "steps", f"{course.steps:,}, {per_step}, {epochs:.3g} epochs"
        share = course.trained_tokens / max(1, course.tokens)
        said = f"{about}{course.tokens:,}, {share:.0%} trained"
        if course.saved >= 0.005:
            said += f"; {course.computed_tokens:,} to compute, {course.saved:.0%} saved by sharing"
        yield "tokens", said
        yield (
            "passes",
            (
                f"{about}{course.passes:,} Packs of at most {plan.budget:,} tokens ({plan.budget_says})"
            ),
        )
        yield "time", self._time()
        disk = plan.disk
        word = "" if disk.fits else self._paint("too little: ", _RED)
        yield (
            "disk",
            (
                f"{word}{bytes_text(disk.num_bytes)} for {disk.checkpoints} checkpoints and the result, "
                f"of {bytes_text(disk.free_bytes)} free"
            ),
        )
        if plan.alone_because:
            yield "sharing", f"none: {plan.alone_because}"

    def _time(self) -> str:
        time = self.plan.time
        least = "" if time.at_least is None else duration_text(time.at_least)
        if time.seconds is not None:
            return f"about {duration_text(time.seconds)} ({time.says})"
        if not least:
            return time.says
        return f"{time.says}; not below {least}, at the cards' peak"

    def _ending(self, typed: Sequence[str]) -> Iterator[str]:
        from hone.recipes.plan import family_says

        doubt = family_says(self.plan)
        if doubt is not None:
            yield from self._wrapped(f"note: {doubt}", "  ")
        if self.changes:
            helps = any(one.fits for one in self.changes)
            yield "To make it fit, add a line that says so:" if helps else "To need less, add:"
            for one in self.changes:
                verdict = "fits" if one.fits else "not enough alone"
                yield f"  {one.words}"
                yield from self._wrapped(
                    f"saves {bytes_text(one.saves_bytes)}, {verdict}; {one.costs}",
                    "      ",
                    first="      ",
                )
            if not helps:
                yield from self._wrapped(
                    "Even all of that is not enough: take a smaller model.", ""
                )
        elif not self.plan.memory.fits:
            yield from self._wrapped("Nothing here makes it fit: take a smaller model.", "")
        elif self.plan.target.is_here:
            words = [word for word in typed[1:] if word != "--json"]
            yield f"next: {shlex.join(['hone', 'train', *words])}"

    def _item(self, name: str, text: str) -> Iterator[str]:
        indent = " " * (_NAME + 2)
        yield from self._wrapped(text, indent, first=f"  {name:<{_NAME}}")

    def _wrapped(self, text: str, indent: str, *, first: str = "") -> Iterator[str]:
        yield from textwrap.wrap(
            printable(text) if "\x1b" not in text else text,
            self.width,
            initial_indent=first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self.look.colour and text else text


def _count(number: int) -> str:
    """`596.0M`, `8.0B`, `12.3k`."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)
