"""`hone push`: publish a trained model, after saying what would go up and asking. It parses, asks, calls and prints."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hone.cli.changed import tidied
from hone.cli.lines import bytes_text
from hone.cli.printable import printable
from hone.errors import ConfigError

if TYPE_CHECKING:
    from hone.recipes.push import Parcel


def push(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, or a folder that export or merge wrote.")
    ],
    repo: Annotated[str, typer.Argument(metavar="USER/NAME", help="The repository on the hub.")],
    *,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; else it is private.")
    ] = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="USER/NAME", help="The base's id on the hub, for an adapter."
        ),
    ] = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="The whole model, not the adapter.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Publish a trained model on the hub: private unless --public, after a question.

    The token is read from HF_TOKEN and shown nowhere. Model, tokenizer and card go up, nothing else of a run.
    """
    from hone.recipes.push import prepare
    from hone.recipes.push import push as send

    with tidied():
        parcel = prepare(run, repo, public=public, base_id=base, merged=merged)
    out = sys.stderr if as_json else sys.stdout
    for line in _told(parcel):
        print(line, file=out)
    if not yes and not _agreed(parcel, out.isatty() and sys.stdin.isatty()):
        typer.echo("nothing was published", err=as_json)
        return 1
    address = send(parcel)
    if as_json:
        sys.stdout.write(json.dumps({**parcel.to_json(), "address": address}) + "\n")
    else:
        typer.echo(f"published: {address}")
    return 0


def _told(parcel: Parcel) -> list[str]:
    seen = "private: you and whom you let" if parcel.private else "PUBLIC: everybody"
    kind = (
        "a new repository" if parcel.is_new else "there already; files of these names are replaced"
    )
    lines = [
        f"to {parcel.repo} ({kind}; {seen} can read it), from {printable(str(parcel.folder))}:"
    ]
    lines += [f"  {printable(name)}  {bytes_text(size)}" for name, size in parcel.files]
    lines.append(f"  together {bytes_text(parcel.num_bytes)}")
    if parcel.left_out:
        lines.append(f"  stays here: {', '.join(map(printable, parcel.left_out))}")
    if parcel.replaces_visibility:
        lines.append("  note: it keeps its visibility; change that in the hub's settings")
    return lines


def _agreed(parcel: Parcel, is_terminal: bool) -> bool:
    if not is_terminal:
        raise ConfigError(
            "nobody is there to say yes",
            remedy="add --yes to publish from a script; nothing was sent",
        )
    return typer.confirm(f"Publish to {parcel.repo}?", default=False)
