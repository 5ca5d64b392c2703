"""`hone cache`: what lies in the cache, and its pruning. It parses, calls and prints."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from hone.cli.lines import bytes_text
from hone.cli.printable import printable

if TYPE_CHECKING:
    from hone.recipes.cache import Contents, Entry, Pruned

app = typer.Typer(rich_markup_mode=None, help="List and prune what can be made again.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")]


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    """The cache (HONE_CACHE): prepared rows, imports, proofs of tokenizers, base models."""
    if context.invoked_subcommand is None:
        list_entries()


@app.command("list")
def list_entries(*, as_json: AsJson = False) -> None:
    """List what lies in the cache: size, last use, and whether a live process holds it."""
    from hone.recipes.cache import cache_folder, look

    found = look(cache_folder())
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    _print_contents(found)


@app.command("prune")
def prune_entries(
    *,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="TIME", help="Not used for so long, e.g. 30d, 12h."),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="Most that may be left, e.g. 20GB."),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove what was used longest ago, and what killed writers left. What is in use stays.

    Without --older-than and --max-size only what killed writers left is removed.
    """
    from hone.recipes.cache import cache_folder, prune, read_duration, read_size

    pruned = prune(
        cache_folder(),
        older_than=None if older_than is None else read_duration(older_than),
        max_bytes=None if max_size is None else read_size(max_size),
        dry_run=dry_run,
    )
    _print_pruned(pruned, as_json=as_json)


@app.command("clear")
def clear(*, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Remove everything that is not in use. It is made again when it is needed."""
    from hone.recipes.cache import cache_folder, prune

    _print_pruned(prune(cache_folder(), everything=True, dry_run=dry_run), as_json=as_json)


def _print_contents(found: Contents) -> None:
    for one in found.entries:
        typer.echo(_line(one))
    total = f"{len(found.entries):,} in {printable(str(found.folder))}: {_size(found.num_bytes)}"
    left = len(found.leftovers)
    typer.echo(f"{total}; {left:,} leftovers of killed writers" if left else total)


def _print_pruned(pruned: Pruned, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(pruned.to_json()))
        return
    for one in pruned.removed:
        typer.echo(_line(one))
    verb = "would remove" if pruned.dry_run else "removed"
    kept = sum(one.num_bytes for one in pruned.kept)
    typer.echo(
        f"{verb} {len(pruned.removed):,} ({_size(pruned.num_bytes)}) and "
        f"{len(pruned.leftovers):,} leftovers; kept {len(pruned.kept):,} ({_size(kept)})"
    )
    if pruned.spared:
        typer.echo(f"{len(pruned.spared):,} that would have gone stayed: in use")


def _line(one: Entry) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.last_used))
    use = "in use" if one.in_use else ""
    name = f"{one.kind}/{one.path.name[:16]}"
    return (
        f"{name:<26}  {_size(one.num_bytes):>9}  {when}  {use:<6}  {printable(one.says)}".rstrip()
    )


def _size(count: int) -> str:
    return f"{count:,} B" if count < 2**20 else bytes_text(count)
