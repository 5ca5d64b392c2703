"""`hone quickstart`: each stage announced, shown and timed. What is done stands in `recipes/quickstart.py`."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hone.cli.lines import duration_text
from hone.cli.printable import printable
from hone.cli.screen import open_screen
from hone.cli.streams import QuietOutput, look_of

if TYPE_CHECKING:
    from hone.recipes.quickstart import Quickstart
    from hone.recipes.score import Score

_FOLDER: Final = Path("hone-quickstart")
_PROGRESS_SECONDS: Final = 0.25
_LINES: Final = 4  # lines about building, where nothing can be redrawn


def quickstart(
    context: typer.Context,
    *,
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where rows and run are written.")
    ] = _FOLDER,
    seed: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Draws the rows and the adapter's start.")
    ] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, even where a run lies in the folder.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line of JSON, the result last.")
    ] = False,
) -> None:
    """See a model learn a task on this CPU: no download, no settings, under two minutes.

    A small base model, which is built once, learns to turn notes into lines of a calendar. The same command
    goes on where it was stopped.
    """
    face = _Json() if as_json else _Words()
    face.stage("start", "A small model learns to turn notes into calendar lines, on this CPU.")
    from hone.recipes.quickstart import Quickstart

    show = Quickstart(folder, seed=seed)
    _prepare(show, face, fresh=fresh)
    before = show.judge_base()
    face.score("before", "Before training", before)
    face.stage("train", "Training an adapter (LoRA) by the road of `hone train`")
    command = ["hone", *context.obj]
    with open_screen(as_json=as_json, quiet=False) as screen:
        show.train(fresh=fresh, command=command, listeners=[screen])
    after = show.judge_tuned()
    face.score("after", "After training", after)
    face.result(show)


def _prepare(show: Quickstart, face: _Json | _Words, *, fresh: bool) -> None:
    """The base model and the rows."""
    face.stage("base", "The base model: it has read plain text, and knows no task")
    base = show.build(progress=face.progress)
    how = f"built in {duration_text(base.seconds)}, kept in" if base.built else "from the cache:"
    face.done(f"{how} {base.folder}", built=base.built, seconds=base.seconds)
    face.stage("rows", "The rows: three of them as training receives them")
    files = show.write(fresh=fresh)
    face.look(show)
    text = ", ".join(str(path) for path in files.values())
    face.done(f"open them yourself: {text}", **{k: str(v) for k, v in files.items()})


class _Json:
    """Each stage as one object, the result as the last."""

    def stage(self, name: str, _: str) -> None:
        """A stage begins."""
        self._say("stage", name=name)

    def progress(self, step: int, steps: int, loss: float) -> None:
        """The base model is being built; nothing is said of it."""

    def done(self, _: str, /, **told: object) -> None:
        """What a stage came to."""
        self._say("prepared", **told)

    def look(self, show: Quickstart) -> None:
        """The first rows, one object each."""
        for line in show.look().json_lines():
            self._say("row", **line)

    def score(self, name: str, _: str, score: Score) -> None:
        """How many held-out rows were right."""
        self._say("score", name=name, exact_match=score.exact_match, rows=len(score.rows))

    def result(self, show: Quickstart) -> None:
        """The closing object."""
        self._say("result", **show.result())

    def _say(self, event: str, **fields: object) -> None:
        told = {"event": event, "time": time.time(), **fields}
        print(json.dumps(told, ensure_ascii=False), flush=True)


class _Words:
    """Headings, a bar while the base is built, and replies side by side."""

    def __init__(self) -> None:
        self._output = QuietOutput()
        self._look = look_of(sys.stdout, os.environ)
        self._stages = 0
        self._drawn_at = float("-inf")
        self._said = 0

    def stage(self, _: str, title: str) -> None:
        """A heading; the first one stands alone."""
        number = f"{self._stages}. " if self._stages else ""
        self._stages += 1
        text = f"{number}{title}"
        bold = f"\x1b[1m{text}\x1b[0m" if self._look.colour else text
        self._output.write_line(("\n" if number else "") + bold)

    def progress(self, step: int, steps: int, loss: float) -> None:
        """How far the base model is, redrawn in place or in a few lines."""
        text = f"building it once: step {step}/{steps}  loss {loss:.2f}"
        if self._look.live:
            now = time.monotonic()
            if step == steps:
                self._output.write("\r\x1b[K")
            elif now - self._drawn_at >= _PROGRESS_SECONDS:
                self._drawn_at = now
                self._output.write(f"\r\x1b[K{text}")
            self._output.flush()
        elif step * _LINES // steps > self._said:
            self._said = step * _LINES // steps
            self._output.write_line(text)

    def done(self, text: str, /, **_: object) -> None:
        """What a stage came to."""
        self._output.write_line(text)

    def look(self, show: Quickstart) -> None:
        """The first rows, token by token."""
        from hone.cli.preview import show as show_rows

        show_rows(show.look())

    def score(self, name: str, title: str, score: Score) -> None:
        """How many held-out rows were right, and one of them."""
        self.stage(name, f"{title}: {score.num_matches} of {len(score.rows)} held-out notes right")
        if name == "before" and score.rows:
            row = score.rows[0]
            self._output.write_line(f"note:  {printable(row.asked)}")
            self._output.write_line(f"wants: {printable(row.expected)}")
            self._output.write_line(f"gets:  {_one_line(row.got)}")

    def result(self, show: Quickstart) -> None:
        """Replies side by side, and what to type next."""
        self._output.write_line("held-out notes, whose person and thing never met in training:")
        for row in show.side_by_side():
            self._output.write_line("")
            for line in _beside(row):
                self._output.write_line(line)
        told = show.result()
        before, after = told["exact_match_before"], told["exact_match_after"]
        seconds = duration_text(float(told["seconds"]))
        self.stage(
            "next", f"Exact match {before:.0%} -> {after:.0%}, {seconds} in all. What to type next:"
        )
        for line in _next(show, told):
            self._output.write_line(line)


def _beside(row: Mapping[str, Any]) -> list[str]:
    right = "right" if row["after"].split() == row["expected"].split() else "wrong"
    return [
        f"  note      {printable(row['note'])}",
        f"  expected  {printable(row['expected'])}",
        f"  before    {_one_line(row['before'])}",
        f"  after     {_one_line(row['after'])}  ({right})",
    ]


def _one_line(text: str) -> str:
    return printable(" ".join(text.split())) or "(nothing)"


def _next(show: Quickstart, told: Mapping[str, Any]) -> Sequence[str]:
    from hone.recipes.toy import EXAMPLE

    run, rows = shlex.quote(str(show.run)), shlex.quote(str(show.folder / "data" / "train.jsonl"))
    base = shlex.quote(str(told["base"]["folder"]))
    return [
        f"  hone chat {run} --once {shlex.quote(EXAMPLE)}",
        f"  hone chat {run} --compare",
        f"  hone runs show {run}",
        f"  hone preview {rows} --model {base} --ids",
        "  hone train YOUR_ROWS.jsonl --model YOUR_MODEL",
    ]
