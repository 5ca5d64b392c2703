"""Which trackers there are, and what each needs to be installed. It loads none of them until it is told to."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Final

from hone.errors import ConfigError, EnvironmentFault, nearest
from hone.runs.trackers.tracker import TrackedRun, Tracker

PACKAGES: Final = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "trackio": "trackio",
    "mlflow": "mlflow",
}
"""The package that each tracker's library is."""


def check_installed(trackers: Iterable[str]) -> None:
    """Raise EnvironmentFault naming every tracker whose package is absent; nothing is loaded.

    ConfigError for a name that is none.
    """
    trackers = list(trackers)
    for name in trackers:
        if name not in PACKAGES:
            raise ConfigError(f"unknown tracker {name!r}", remedy=nearest(name, PACKAGES))
    absent = [name for name in trackers if importlib.util.find_spec(PACKAGES[name]) is None]
    if absent:
        raise EnvironmentFault(
            f"output.trackers: {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed",
            remedy=f"pip install {' '.join(PACKAGES[name] for name in absent)} (or 'hone[track]' for all "
            "trackers), or leave it out",
        )


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """Load a tracker's library and begin, or go on with, its run. Raises whatever the library raises."""
    match name:
        case "tensorboard":
            from hone.runs.trackers.tensorboard import TensorBoardTracker

            return TensorBoardTracker(run)
        case "wandb":
            from hone.runs.trackers.wandb import WandbTracker

            return WandbTracker(run)
        case "trackio":
            from hone.runs.trackers.trackio import TrackioTracker

            return TrackioTracker(run)
        case "mlflow":
            from hone.runs.trackers.mlflow import MlflowTracker

            return MlflowTracker(run)
        case _:
            raise ConfigError(f"unknown tracker {name!r}", remedy=nearest(name, PACKAGES))
