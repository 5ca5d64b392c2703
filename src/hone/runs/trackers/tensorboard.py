"""TensorBoard: scalars and text in an event file, written by the package `tensorboard` itself, without TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from hone.runs.trackers.tracker import Ending, Point, Sample, TrackedRun, samples_page


class TensorBoardTracker:
    """One event file for each process that trains the run; TensorBoard reads them as one run."""

    notices = ()

    def __init__(self, run: TrackedRun) -> None:
        written: Any = import_module("tensorboard.summary.writer.event_file_writer")
        self._event: Any = import_module("tensorboard.compat.proto.event_pb2").Event
        self._scalar: Any = import_module("tensorboard.plugins.scalar.summary_v2").scalar_pb
        self._text: Any = import_module("tensorboard.plugins.text.summary_v2").text_pb
        folder = run.folder / "tensorboard"
        self.id = str(folder)
        self.place = f"tensorboard --logdir {run.folder}"
        self._writer: Any = written.EventFileWriter(str(folder))
        if run.id is None:
            settings = json.dumps(run.config, indent=1, default=str)
            lines = "\n".join(f"    {line}" for line in settings.split("\n"))
            self._write(0, None, self._text("settings", lines))

    def log(self, points: Sequence[Point]) -> None:
        """One scalar for each number."""
        for point in points:
            for name, value in point.metrics.items():
                self._write(point.step, point.time, self._scalar(name, value))
        self._writer.flush()

    def log_samples(self, step: int, time: float, samples: Sequence[Sample]) -> None:
        """One text for each prompt."""
        for number, sample in enumerate(samples, start=1):
            self._write(step, time, self._text(f"samples/{number}", samples_page([sample])))
        self._writer.flush()

    def close(self, ending: Ending) -> None:
        """Close the file; TensorBoard has no word for how a run ended."""
        del ending
        self._writer.close()

    def _write(self, step: int, time: float | None, summary: Any) -> None:
        event: Any = self._event(step=step, summary=summary)
        if time is not None:
            event.wall_time = time
        self._writer.add_event(event)
