"""`python -m hone.serving`: the server as a child of another program, which it does not outlive.

It serves one growing folder, `FOLDER/checkpoints/0001`, `0002`, … (PEFT adapters of one base), as `NAME` (the
newest) and `NAME@N`. When it answers it prints one line of JSON: `{"event": "ready", "base_url": …, "port": …,
"models": […], "pid": …}`. A failure to start is one line too, `{"event": "error", "message": …}`, and the exit code.
An API key is read from `HONE_API_KEY`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hone.errors import HoneError
from hone.serving.child_words import end_with_parent, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes or the parent is gone; the exit code."""
    asked = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from hone.infer.batch import Bounds
        from hone.infer.served import Growing
        from hone.infer.shelf import Shelf
        from hone.serving.server import Address, Server

        served = Growing(asked.name or asked.folder.resolve().name, asked.folder, asked.base)
        shelf = Shelf([served], Bounds(rows=asked.max_batch, waiting=asked.max_queue))
        shelf.voice(served.name)
        key = os.environ.get("HONE_API_KEY") or None
        server = Server(shelf, Address(asked.host, asked.port, key), most_tokens=asked.max_tokens)
    except HoneError as error:
        say({"event": "error", "message": str(error)})
        return error.exit_code
    end_with_parent(asked.parent or os.getppid())
    ready = {"base_url": server.base_url, "port": server.port, "models": shelf.names()}
    say({"event": "ready", **ready, "pid": os.getpid()})  # the socket listens already
    server.run()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m hone.serving", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="holds checkpoints/NNNN")
    parser.add_argument("--base", required=True, help="model folder or hub id of their base")
    parser.add_argument("--name", help="name of the model; the folder's without it")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--max-queue", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--parent", type=int, help="pid to end with; the parent's without it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
