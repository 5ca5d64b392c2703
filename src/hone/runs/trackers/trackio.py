"""Trackio, through the package `trackio`: a database on this machine, or what its own environment variables name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from hone.runs.trackers.tracker import Ending, Point, Sample, TrackedRun, samples_page


class TrackioTracker:
    """A run of `trackio.init`, found again by its name."""

    notices = ()

    def __init__(self, run: TrackedRun) -> None:
        self._library: Any = import_module("trackio")
        self.id = run.id or run.name
        self.place = f"trackio show --project {run.project}"
        self._run: Any = self._library.init(
            project=run.project,
            name=self.id,
            config=dict(run.config),
            resume="never" if run.id is None else "allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def log(self, points: Sequence[Point]) -> None:
        """The numbers, each at its own step."""
        for point in points:
            self._run.log(dict(point.metrics), step=point.step)

    def log_samples(self, step: int, time: float, samples: Sequence[Sample]) -> None:
        """All prompts as one page of Markdown."""
        del time
        self._run.log({"samples": self._library.Markdown(samples_page(samples))}, step=step)

    def close(self, ending: Ending) -> None:
        """Write what is waiting; Trackio has no word for how a run ended."""
        del ending
        self._run.finish()
