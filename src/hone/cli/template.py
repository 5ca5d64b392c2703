"""`hone template`: a model's chat template shown at work, and tried. It decides nothing about templates."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hone.cli.inputs import resolve_words
from hone.cli.printable import printable
from hone.cli.streams import look_of
from hone.errors import ConfigError

if TYPE_CHECKING:
    from hone.config.sections import Config
    from hone.data.example import Example
    from hone.recipes.preview import Preview
    from hone.recipes.template import Report, Shown

app = typer.Typer(rich_markup_mode=None, help="Show and check a model's chat template.")

_BROKEN: Final = 3
_SIGNS: Final = {"ok": ("ok", "32"), "handled": ("handled", "33"), "broken": ("BROKEN", "1;31")}

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder (its tokenizer will do) or a hub id.")
]
Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="key=value", help="e.g. 'data.template_kwargs={enable_thinking: false}'"
    ),
]
Template = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Another template than the model's own."),
]


@app.callback()
def _group() -> None:
    """A model's chat template."""


@app.command("show")
def show(
    model: Model,
    words: Settings = None,
    *,
    template: Template = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print a template's source, and made-up conversations with control tokens and trained text marked."""
    config = _config(model, words, template)
    from hone.recipes.template import show_template

    shown = show_template(config)
    if as_json:
        typer.echo(json.dumps(shown.to_json(), ensure_ascii=False))
        return
    look = _Look(look_of(sys.stdout, os.environ).colour)
    for text in _screen(shown, look):
        sys.stdout.write(text)


@app.command("check")
def check(
    model: Model,
    words: Settings = None,
    *,
    template: Template = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Try what training relies on: turns as inference asks for them, beginning, end, control tokens.

    Exit code 0 where everything is right or Hone answers for it, 3 where something is broken.
    """
    config = _config(model, words, template)
    from hone.recipes.template import check_template

    report = check_template(config)
    if as_json:
        typer.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        look = _Look(look_of(sys.stdout, os.environ).colour)
        sys.stdout.write(_told(report, look))
    if report.verdict == "broken":
        raise typer.Exit(_BROKEN)


def _config(model: str, words: list[str] | None, template: str | None) -> Config:
    stray = next((word for word in words or [] if "=" not in word), None)
    if stray is not None:
        raise ConfigError(
            f"what is {stray!r}?",
            where="command line",
            remedy="after the model only settings follow, written key=value",
        )
    flags = {"model.name": model, "data.template": template}
    return resolve_words(words or [], flags=flags).config


@dataclass(frozen=True)
class _Look:
    """Colour, or marks where there is none."""

    colour: bool

    def styled(self, code: str, text: str) -> str:
        """Text in a style, which crosses no line end."""
        if not self.colour or not code:
            return text
        return "\n".join(f"\x1b[{code}m{line}\x1b[0m" if line else "" for line in text.split("\n"))

    def piece(self, text: str, *, control: bool, trained: bool) -> str:
        """Text of one kind: control tokens underlined, or in pointed marks."""
        if not self.colour:
            return f"«{text}»" if control else text
        codes = [*(["1", "32"] if trained else ["2"]), *(["4"] if control else [])]
        return self.styled(";".join(codes), text)

    def span(self, text: str, *, trained: bool) -> str:
        """A trained run between marks, where there is no colour."""
        return f"⟦{text}⟧" if trained and not self.colour else text


def _told(report: Report, look: _Look) -> str:
    lines = [f"{printable(report.model)}: {printable(report.template)}"]
    width = max(len(one.name) for one in report.properties)
    for one in report.properties:
        sign, code = _SIGNS[one.verdict]
        first, *rest = printable(one.sentence).split("\n")
        lines.append(f"{look.styled(code, f'{sign:<7}')} {one.name:<{width}}  {first}")
        lines += [f"{'':<{width + 8}}  {line}" for line in rest]
    words = {
        "ok": "everything is right",
        "handled": "nothing is broken; what is not right is handled as said",
        "broken": "something is broken",
    }
    return "\n".join([*lines, words[report.verdict], ""])


def _screen(shown: Shown, look: _Look) -> Iterator[str]:
    bold = "1"
    yield look.styled(bold, f"template: {printable(shown.template)}") + "\n"
    yield printable(shown.source).rstrip("\n") + "\n"
    if shown.tool_source is not None:
        yield "\n" + look.styled(bold, "template for conversations with tools") + "\n"
        yield printable(shown.tool_source).rstrip("\n") + "\n"
    legend = [
        look.span(look.piece("trained", control=False, trained=True), trained=True),
        look.piece("context", control=False, trained=False),
        look.piece("control token", control=True, trained=False),
    ]
    yield "\n" + " ".join(legend) + "\n"
    for name, row in zip(shown.names, shown.preview.rows, strict=True):
        if row.dropped:
            yield f"\n{look.styled(bold, f'── {name}')}: {printable(row.dropped)}\n"
        for number, example in enumerate(row.uncut):
            many = f", Example {number + 1} of {len(row.uncut)}" if len(row.uncut) > 1 else ""
            yield f"\n{look.styled(bold, f'── {name}{many}')}\n"
            for run in shown.preview.runs(row, number):
                yield _run(
                    shown.preview, example, run.start, run.stop, look, trained=run.is_trained
                )
            yield "\n"


def _run(
    seen: Preview, example: Example, start: int, stop: int, look: _Look, *, trained: bool
) -> str:
    parts: list[str] = []
    for control, same in groupby(
        seen.pieces(example, start, stop),
        key=lambda piece: piece.start if seen.is_control(piece.ids[0]) else -1,
    ):
        text = printable("".join(piece.text for piece in same))
        parts.append(look.piece(text, control=control >= 0, trained=trained))
    return look.span("".join(parts), trained=trained)
