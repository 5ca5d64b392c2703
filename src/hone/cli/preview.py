"""`hone preview`: rows token by token, on a terminal, as a page or as JSON. It decides nothing about rows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hone.cli.inputs import WORDS_HELP, WORDS_METAVAR, resolve_words
from hone.cli.printable import printable
from hone.cli.streams import look_of
from hone.errors import DiskError

if TYPE_CHECKING:
    from hone.data.example import Example
    from hone.recipes.preview import Preview, Run

_SHOWN_BEFORE: Final = 60  # tokens of a long context at its start
_SHOWN_AFTER: Final = 30  # and at its end
_LINE: Final = "─" * 3


def preview(
    words: Annotated[
        list[str] | None, typer.Argument(metavar=WORDS_METAVAR, help=WORDS_HELP)
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|HUB_ID", help="Model; a folder with only a tokenizer will do."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, metavar="COUNT", help="How many rows.")] = 3,
    skip: Annotated[int, typer.Option(min=0, metavar="COUNT", help="Rows to pass over first.")] = 0,
    ids: Annotated[
        bool, typer.Option("--ids", help="One token a line, with id and weight.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Show long context whole.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page for the browser instead.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration file, YAML or JSON.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per Example and line.")
    ] = False,
) -> None:
    """Show rows token by token: what is trained, what is context, what is cut.

    What is shown is the very array that training receives. Settings of data can follow as key=value,
    e.g. data.train_on=last data.max_length=2048 'data.columns={user: question, assistant: answer}'.
    """
    resolved = resolve_words(words or [], config=config, flags={"model.name": model})
    from hone.recipes.preview import preview as look

    seen = look(resolved.config, rows=rows, skip=skip)
    if as_json:
        for line in seen.json_lines():
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        return
    if html is not None:
        _write_page(seen, html)
        typer.echo(f"wrote {html}")
        return
    show(seen, with_ids=ids, full=full)


def show(seen: Preview, *, with_ids: bool = False, full: bool = False) -> None:
    """Print the rows for this terminal."""
    paint = _Paint(look_of(sys.stdout, os.environ).colour, (sys.stdout.encoding or "utf-8").lower())
    for text in _screen(seen, paint, with_ids=with_ids, full=full):
        sys.stdout.write(text)


@dataclass(frozen=True)
class _Paint:
    """How trained, context and cut text look: in colour, or between marks where there is none."""

    colour: bool
    encoding: str

    def trained(self, text: str) -> str:
        """Text that is trained."""
        return self._styled("1;32", text) if self.colour else self._between("⟦", "⟧", text)

    def context(self, text: str) -> str:
        """Text that is only read."""
        return self._styled("2", text)

    def cut(self, text: str) -> str:
        """Text that training does not receive."""
        return self._styled("9;31", text) if self.colour else self._between("✂", "✂", text)

    def bold(self, text: str) -> str:
        """A heading."""
        return self._styled("1", text)

    def warning(self, text: str) -> str:
        """Something to notice."""
        return self._styled("33", text)

    def of(self, run: Run, *, underlined: bool = False) -> Callable[[str], str]:
        """The look of a run; control tokens are underlined, so that text which only spells one is not."""
        if underlined and self.colour:
            code = "4;9;31" if run.is_cut else "1;4;32" if run.weight else "2;4"
            return lambda text: self._styled(code, text)
        if run.is_cut:
            return self.cut
        return self.trained if run.weight else self.context

    def _styled(self, code: str, text: str) -> str:
        if not self.colour:
            return text
        lines = text.split("\n")  # a style that crosses a line end bleeds in pagers
        return "\n".join(f"\x1b[{code}m{line}\x1b[0m" if line else "" for line in lines)

    def _between(self, left: str, right: str, text: str) -> str:
        if "utf" not in self.encoding:
            left, right = ("[[", "]]") if left == "⟦" else ("[cut:", "]")
        return f"{left}{text}{right}"


def _screen(seen: Preview, paint: _Paint, *, with_ids: bool, full: bool) -> Iterator[str]:
    ledger = seen.ledger
    share = ledger.trained_tokens / max(1, ledger.tokens)
    yield (
        f"{paint.bold(printable(ledger.file))}: {ledger.shape}, {_count(ledger.read, 'row')} shown, "
        f"{_count(ledger.examples, 'Example')}, {ledger.tokens:,} tokens, "
        f"{ledger.trained_tokens:,} trained ({share:.1%})\n"
        f"chat template: {printable(seen.template)}; length limit: {seen.limit()}\n"
        f"{paint.trained('trained')} {paint.context('context')} {paint.cut('cut')}\n"
    )
    for row in seen.rows:
        for number, example in enumerate(row.uncut):
            state = f"not trained: {row.dropped}" if row.dropped else seen.remark(row, example)
            many = f", Example {number + 1} of {len(row.uncut)}" if len(row.uncut) > 1 else ""
            trained = example.num_trained_tokens
            yield (
                f"\n{_LINE} {paint.bold(printable(str(row.origin)))}{many}: {example.num_tokens:,} tokens, "
                f"{trained:,} trained ({trained / max(1, example.num_tokens):.1%})"
                f"{'; ' + paint.warning(printable(state)) if state else ''} {_LINE}\n"
            )
            show = _listing if with_ids else _text
            for run in seen.runs(row, number):
                yield from show(seen, example, run, paint, full=full)
            yield "" if with_ids else "\n"
        if not row.uncut:
            yield f"\n{_LINE} {paint.bold(printable(str(row.origin)))}: "
            yield f"{paint.warning('not trained: ' + printable(row.dropped))} {_LINE}\n"
    for notice in seen.notices:
        yield paint.warning(f"\nnotice: {printable(notice)}")
    yield "\n"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _spans(run: Run, *, full: bool) -> list[tuple[int, int]]:
    """What is shown of a run: all of it, or its beginning and its end."""
    left_out = run.stop - run.start - _SHOWN_BEFORE - _SHOWN_AFTER
    if full or run.is_trained or left_out < _SHOWN_AFTER:
        return [(run.start, run.stop)]
    return [(run.start, run.start + _SHOWN_BEFORE), (run.stop - _SHOWN_AFTER, run.stop)]


def _text(seen: Preview, example: Example, run: Run, paint: _Paint, *, full: bool) -> Iterator[str]:
    spans = _spans(run, full=full)
    left_out = run.stop - run.start - sum(stop - start for start, stop in spans)
    between = f" … {left_out:,} more … "
    note = f"(weight {run.weight:g})" if run.weight not in (0.0, 1.0) else ""
    if not paint.colour:
        shown = [printable(seen.text(example, start, stop)) for start, stop in spans]
        yield paint.of(run)(between.join(shown)) + note
        return
    for number, (start, stop) in enumerate(spans):
        yield paint.context(between) if number else ""
        pieces = seen.pieces(example, start, stop)
        for control, same in groupby(pieces, key=lambda piece: seen.is_control(piece.ids[0])):
            text = printable("".join(piece.text for piece in same))
            yield paint.of(run, underlined=control)(text)
    yield note


def _listing(
    seen: Preview, example: Example, run: Run, paint: _Paint, *, full: bool
) -> Iterator[str]:
    look = paint.of(run)
    before = run.start
    for start, stop in _spans(run, full=full):
        if start > before:
            yield paint.context(f"        … {start - before:,} more …") + "\n"
        for piece in seen.pieces(example, start, stop):
            for offset, token in enumerate(piece.ids):
                text = piece.text if len(piece.ids) == 1 else seen.tokenizer.token(token)
                shown = json.dumps(printable(text), ensure_ascii=False)
                yield f"{piece.start + offset:>7} {token:>7} {run.weight:>5g} {look(shown)}\n"
        before = stop


def _write_page(seen: Preview, path: Path) -> None:
    from hone.recipes.preview_page import page

    try:
        path.write_text(page(seen), encoding="utf-8")
    except OSError as fault:
        raise DiskError(
            f"cannot write the page: {fault.strerror or fault}",
            where=str(path),
            remedy="name a file in a folder that exists and that you may write",
        ) from fault
