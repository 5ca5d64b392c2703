"""`python -m hone.service.speaker`: one base model and whatever was tuned from it, as a server of its own.

It is a child of the service, asked by the service alone, and does not outlive it. It knows models by the service's
names for them, and looks a name up when it is first asked for. Its key comes by `HONE_API_KEY`; what it says when it is
ready is a line of JSON, as of `python -m hone.serving`.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hone.errors import HoneError
from hone.infer.batch import Bounds
from hone.infer.served import Growing, Served
from hone.infer.shelf import Shelf
from hone.infer.writer import UnknownModel, Voice
from hone.service.names import split_calling
from hone.service.store import Store
from hone.serving.child_words import end_with_parent, say
from hone.serving.server import Address, Server
from hone.trainable.folder import ModelFolder

_MOST_TOKENS: Final = 2048


class Speaker(Shelf):
    """A shelf that finds what the service has made of one base since it was opened."""

    def __init__(self, store: Store, base: str, target: str, bounds: Bounds) -> None:
        self._store = store
        self._root_model = target
        self._known = {base}
        self._learning = threading.Lock()
        super().__init__([Served(base, target)], bounds)

    def voice(self, name: str) -> Voice:
        """As `Writer.voice`."""
        stem = name.partition("@")[0]
        with self._learning:
            if stem not in self._known and name not in self._known:
                served = self._learn(name, stem)
                self.add(served)
                self._known.add(served.name)
        return super().voice(name)

    def _learn(self, name: str, stem: str) -> Served:
        calling = split_calling(stem)
        root = self._store.root.resolve()
        if calling is not None:
            owner, project, model = calling
            folder = ModelFolder(root / "trainable" / owner, project, model)
            return Growing(stem, folder.path, self._root_model)
        found = self._store.any_model(name)
        if found is None:
            raise UnknownModel(f"no model {name!r} is served here")
        return Served(name, str(root / found.path))


def main(words: Sequence[str] | None = None) -> int:
    """Serve until a signal comes or the parent is gone."""
    os.umask(0o077)
    said = _parser().parse_args(words)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        bounds = Bounds(rows=said.max_batch, waiting=said.max_queue)
        speaker = Speaker(Store(said.root), said.base, said.target, bounds)
        speaker.voice(said.base)
        key = os.environ.pop("HONE_API_KEY")
        server = Server(speaker, Address(port=0, key=key), most_tokens=_MOST_TOKENS)
    except HoneError as error:
        say({"event": "error", "message": error.what})
        return error.exit_code
    end_with_parent(said.parent)
    say({"event": "ready", "base_url": server.base_url, "port": server.port, "pid": os.getpid()})
    server.run()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m hone.service.speaker", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the service's folder")
    parser.add_argument("--base", required=True, help="the service's name of the base model")
    parser.add_argument("--target", required=True, help="its folder or hub id")
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--max-queue", type=int, default=128)
    parser.add_argument("--parent", type=int, required=True, help="pid to end with")
    return parser


if __name__ == "__main__":
    sys.exit(main())
