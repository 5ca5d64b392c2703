"""`hone tensorboard start` and `stop`: the curves of runs in a browser. It parses, calls and prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hone.cli.printable import printable

app = typer.Typer(rich_markup_mode=None, help="Start and stop TensorBoard over runs.")


@app.callback()
def _group() -> None:
    """Curves in a browser."""


@app.command("start")
def start(
    *,
    logdir: Annotated[
        Path, typer.Option("--logdir", metavar="FOLDER", help="Where runs lie.")
    ] = Path("outputs"),
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Of this machine alone.")
    ] = 6006,
) -> None:
    """Start TensorBoard in the background, on 127.0.0.1; what runs already is kept."""
    from hone.recipes.board import start_board

    board, is_new = start_board(logdir, port)
    print(
        printable(
            f"TensorBoard {'is' if is_new else 'was already'} at {board.url} (hone tensorboard stop ends it)"
        )
    )


@app.command("stop")
def stop() -> None:
    """End the TensorBoard that was started in this folder, and nothing else."""
    from hone.recipes.board import stop_board

    board = stop_board()
    print(
        "no TensorBoard of this folder runs"
        if board is None
        else f"ended, port {board.port} is free"
    )
