"""`hone documents`: texts of a folder to rows for continued pre-training. It parses, calls and prints."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hone.cli.changed import AsJson, Force, LedgerFile, tidied
from hone.cli.printable import printable
from hone.cli.run_flags import ConfigFile, Model
from hone.errors import ConfigError

if TYPE_CHECKING:
    from hone.recipes.documents import DocumentReport, Losses

_SHOWN = 3
_KEYS = ("data.chunk_size", "data.overlap", "data.min_text_length", "data.block_size")


def documents(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER [key=value ...]",
            help="A folder of .txt, .md, .docx, .pdf and .jsonl, its sub-folders too; or one such file.",
        ),
    ],
    *,
    to: Annotated[Path, typer.Option("--to", metavar="FILE.jsonl", help="Where the rows go.")],
    chunk_size: Annotated[
        str | None, typer.Option("--chunk-size", metavar="CHARACTERS", help="data.chunk_size.")
    ] = None,
    overlap: Annotated[str | None, typer.Option(metavar="CHARACTERS", help="data.overlap.")] = None,
    min_text_length: Annotated[
        str | None,
        typer.Option("--min-text-length", metavar="CHARACTERS", help="data.min_text_length."),
    ] = None,
    block_size: Annotated[
        str | None,
        typer.Option("--block-size", metavar="TOKENS", help="data.block_size; needs --model."),
    ] = None,
    model: Model = None,
    config: ConfigFile = None,
    force: Force = False,
    ledger: LedgerFile = None,
    as_json: AsJson = False,
) -> None:
    """Cut documents by paragraph into rows of plain text, without duplicates: every loss is counted.

    A document that cannot be read is named with what to do about it, and the others go on. Train on the rows as
    on any, mixed with conversations by weight in `data.sources`.
    """
    from hone.config.layers import COMMAND_LINE, resolve
    from hone.recipes.documents import write_documents

    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    places = [word for word in words if word not in overrides]
    if len(places) != 1:
        raise ConfigError(
            f"one folder of documents is wanted; found {len(places)}",
            remedy="name one folder or file",
        )
    values = (chunk_size, overlap, min_text_length, block_size)
    flags = {**dict(zip(_KEYS, values, strict=True)), "model.name": model}
    resolved = resolve(file=config, environment=os.environ, overrides=overrides, flags=flags)
    for name, origin in resolved.origins.items():
        if origin == COMMAND_LINE and name not in (*_KEYS, "model.name", "model.revision"):
            raise ConfigError(f"{name} has no effect here", remedy=f"allowed: {', '.join(_KEYS)}")
    section = resolved.config.data
    if model is not None and section.block_size is None:
        raise ConfigError(
            "--model has no effect without data.block_size",
            remedy="leave it out: rows of text are made without a model",
        )
    with tidied():
        report = write_documents(
            Path(places[0]), to, section, model=resolved.config.model, ledger=ledger, force=force
        )
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), ensure_ascii=False) + "\n")
        return
    for line in _lines(report):
        typer.echo(line)


def _lines(report: DocumentReport) -> Iterator[str]:
    lost = report.documents - report.documents_kept
    yield (
        f"{printable(report.folder)}: {report.documents:,} documents = read {report.documents_kept:,} "
        f"({report.characters:,} characters) + left out {lost:,}"
    )
    for reason, one in report.faults.items():
        yield f"  left out {_counted(reason, one)}"
        if one.remedy:
            yield f"    remedy: {printable(one.remedy)}"
    if report.passed_over:
        told = ", ".join(f"{kind} {count:,}" for kind, count in sorted(report.passed_over.items()))
        yield f"  passed over, of other kinds: {printable(told)}"
    dropped = report.pieces - report.kept
    yield f"{report.pieces:,} pieces = kept {report.kept:,} ({report.characters_kept:,} characters) + dropped {dropped:,}"
    for reason, one in report.dropped.items():
        yield f"  dropped {_counted(reason, one)}"
    for notice in report.notices:
        yield f"note: {notice}"
    tokens = "" if report.tokens is None else f", {report.tokens:,} tokens"
    yield f"wrote {printable(report.written)}: {report.rows:,} rows{tokens}"
    yield f"every place: {printable(report.ledger_file)}"


def _counted(reason: str, one: Losses) -> str:
    told = zip(one.places[:_SHOWN], one.details, strict=False)
    shown = "; ".join(printable(f"{place}: {said}" if said else place) for place, said in told)
    more = "; ..." if len(one.places) > _SHOWN else ""
    return f"{len(one.places):,}: {printable(reason)} ({shown}{more})"
