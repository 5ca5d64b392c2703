"""The process of one tracker: `python -m hone.runs.trackers TRACKER RUN_FOLDER`.

It reads the run's folder and tells its parent, a line of JSON each: that it lives, what a user should know, why it
failed. It ends when its standard input does: the run is over then, however it ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, Final, TextIO, cast

from hone.runs.folder import RunFolder
from hone.runs.trackers.choice import open_tracker
from hone.runs.trackers.follower import Follower, Told
from hone.runs.trackers.tracker import TrackedRun, flat_config

_POLL_SECONDS: Final = 0.5
_NICENESS: Final = 5
_LONGEST_REASON: Final = 400  # characters


def main(words: list[str]) -> int:
    """Follow the run until it is over. 0, or 1 where the tracker failed."""
    name, folder = words
    parent = _parent()
    os.nice(_NICENESS)
    over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()
    try:
        _follow(name, RunFolder(Path(folder)), over, parent)
    except BaseException as error:  # noqa: BLE001 - whatever a library does, the run is told and goes on
        _tell(parent, failed=_reason(error))
        return 1
    _tell(parent, done=True)
    return 0


def _follow(name: str, run: RunFolder, over: threading.Event, parent: TextIO) -> None:
    state = run.tracking_folder / f"{name}.json"
    state.parent.mkdir(exist_ok=True)
    told = Told.read(state)
    tracker = open_tracker(name, _tracked(run, told.id))
    told.id = tracker.id
    told.write(state)
    for notice in tracker.notices:
        _tell(parent, notice=notice)
    _tell(parent, place=tracker.place)
    follower = Follower(run.events_file, state, tracker, told)
    is_over = False
    while not is_over:
        is_over = over.wait(_POLL_SECONDS)
        follower.pass_on(lambda: _tell(parent))
        _tell(parent)
    tracker.close(follower.ending)


def _tracked(run: RunFolder, known_id: str | None) -> TrackedRun:
    config = cast("dict[str, Any]", (run.read_identity() or {}).get("config") or {})
    track = cast("dict[str, Any]", config.get("output", {}).get("track", {}))
    folder = track.get("folder")
    name = track.get("name") or run.name
    return TrackedRun(
        name=name,
        project=track.get("project") or "hone",
        tags=tuple(track.get("tags") or ()),
        entity=track.get("entity"),
        uri=track.get("uri"),
        folder=run.tracking_folder if folder is None else Path(folder).expanduser() / name,
        beside=run.path.absolute().parent,
        config={**flat_config(config), **(track.get("config") or {})},
        artifact=run.path.absolute() if track.get("log_model") else None,
        id=known_id,
    )


def _parent() -> TextIO:
    """The pipe to the run. Whatever a library prints goes nowhere: the screen is not its."""
    own = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    return os.fdopen(own, "w", encoding="utf-8", buffering=1)


def _tell(parent: TextIO, **what: object) -> None:
    """One line; without a word it only says that this process lives."""
    try:
        parent.write(json.dumps(what) + "\n")
    except OSError:  # the run is gone: what is left is still sent
        return


def _wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.buffer.read()
    over.set()


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:_LONGEST_REASON]


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # a library's own threads and exit hooks may hang: nothing of ours is left to do
