"""What a training run came to, and where it lies. It knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hone.config.sections import Config


@dataclass(frozen=True)
class Trained:
    """What a run came to."""

    folder: Path
    steps: int
    loss: float
    validation_loss: float | None
    seconds: float


def run_path(config: Config) -> Path:
    """The folder of the run: as set, or `runs/<data>-<model>`, so that the same command finds it again."""
    return Path(config.output.dir) if config.output.dir else default_folder(config)


def default_folder(config: Config) -> Path:
    """`runs/<data>-<model>`."""
    paths = [config.data.path] if config.data.path else [one.path for one in config.data.sources]
    data = "+".join(Path(path).stem for path in paths[:3]) or "rows"
    model = config.model.name.rstrip("/").rsplit("/", 1)[-1] or "model"
    return Path("runs") / f"{data}-{model}"
