"""MLflow, through the client of the package `mlflow`: a server, or a database file beside the run's folder."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from hone.runs.trackers.tracker import Ending, Point, Sample, TrackedRun, samples_page

_METRICS_A_CALL: Final = 1000  # the server's own limits
_PARAMS_A_CALL: Final = 100
_LONGEST_PARAM: Final = 500  # characters
_NOT_A_NAME: Final = re.compile(r"[^\w\-. :/]")
_STATUS: Final = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """A run of an experiment; metrics go in batches, samples are artifacts."""

    notices = ()

    def __init__(self, run: TrackedRun) -> None:
        library: Any = import_module("mlflow")
        self._entities: Any = library.entities
        local = f"sqlite:///{(run.beside / 'mlflow.db').absolute()}"
        uri = run.uri or os.environ.get("MLFLOW_TRACKING_URI") or local
        self._client: Any = library.MlflowClient(tracking_uri=uri)
        self.place = f"mlflow ui --backend-store-uri {uri}" if "://" in uri else uri
        if run.id is not None:
            self.id = run.id
            self._client.update_run(self.id, status="RUNNING")
            return
        tags = {"mlflow.source.name": "hone", **dict.fromkeys(run.tags, "true")}
        made = self._client.create_run(self._experiment(run, uri), run_name=run.name, tags=tags)
        self.id = str(made.info.run_id)
        params = [
            self._entities.Param(name, str(value)[:_LONGEST_PARAM])
            for name, value in run.config.items()
            if value is not None and value != ""
        ]
        for first in range(0, len(params), _PARAMS_A_CALL):
            self._client.log_batch(self.id, params=params[first : first + _PARAMS_A_CALL])

    def log(self, points: Sequence[Point]) -> None:
        """The numbers, each at its own step."""
        metrics = [
            self._entities.Metric(
                _NOT_A_NAME.sub("_", name), value, int(point.time * 1000), point.step
            )
            for point in points
            for name, value in point.metrics.items()
        ]
        for first in range(0, len(metrics), _METRICS_A_CALL):
            self._client.log_batch(self.id, metrics=metrics[first : first + _METRICS_A_CALL])

    def log_samples(self, step: int, time: float, samples: Sequence[Sample]) -> None:
        """One Markdown page a step."""
        del time
        self._client.log_text(self.id, samples_page(samples), f"samples/step-{step:08d}.md")

    def close(self, ending: Ending) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self.id, _STATUS[ending])

    def _experiment(self, run: TrackedRun, uri: str) -> str:
        """The id of the project's experiment, made where it is absent."""
        known = self._client.get_experiment_by_name(run.project)
        if known is not None:
            return str(known.experiment_id)
        # A database file keeps artifacts where the process happens to stand, unless it is told.
        place = (run.beside / "mlflow-artifacts").absolute().as_uri()
        more = {"artifact_location": place} if uri.startswith("sqlite:") else {}
        return str(self._client.create_experiment(run.project, **more))
