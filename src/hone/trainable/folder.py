"""Where a trainable model lies: the one file that knows its layout. It knows no tensors.

<path>/<project>/models/<name>/
    model.json               what it is, written when it is registered
    state.json               how far it has come: step, gradient steps, totals
    history.jsonl            a row for each gradient step, for each call, and for each `log`
    checkpoints/0000         as registered: adapter, its config, tokenizer, hone.json
    checkpoints/0001 ...     after each call of `train_sft` that trained
    trajectories/<split>/    what was logged, as 0001.jsonl
    logs/                    what the processes said that train and serve it
    training/                a run folder of Hone: events, lock, optimizer and random state
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from hone.errors import ConfigError, DiskError, EnvironmentFault
from hone.runs.disk import Disk, read_regular

ABOUT: Final = "hone.json"
"""In a checkpoint: the gradient steps that it has seen."""
DEFAULT_FOLDER: Final = ".hone"
"""Where models lie, at the root of the repository that the working directory lies in."""
ART_FOLDER: Final = ".art"
"""The same for `hone.art`."""
_STEP = re.compile(r"\d{4,}")
_LONGEST_NAME_BYTES: Final = 200


class ModelFolder:
    """Paths, and whole-file reads and writes, of one trainable model."""

    def __init__(self, root: Path, project: str, name: str) -> None:
        check_name(project, "project")
        check_name(name, "name")
        self.path = root / project / "models" / name
        self._disk = Disk()

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.path / "checkpoints"

    @property
    def training(self) -> Path:
        """The run folder that holds what training needs beyond the adapter."""
        return self.path / "training"

    @property
    def logs(self) -> Path:
        """What processes write to their standard output."""
        return self.path / "logs"

    @property
    def history(self) -> Path:
        """Rows of metrics, one JSON object a line."""
        return self.path / "history.jsonl"

    def checkpoint(self, step: int) -> Path:
        """The folder of a step."""
        return self.checkpoints / f"{step:04d}"

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        return checkpoint_steps(self.checkpoints)

    def latest(self) -> int | None:
        """The highest step; None before the model is registered."""
        return max(self.steps(), default=None)

    def read_model(self) -> dict[str, Any] | None:
        """What `model.json` says; None where there is none."""
        return self._read("model.json")

    def write_model(self, told: Mapping[str, Any]) -> None:
        """Keep what the model is."""
        self._write("model.json", told)

    def read_state(self) -> dict[str, Any]:
        """What `state.json` says; empty where there is none."""
        return self._read("state.json") or {}

    def write_state(self, told: Mapping[str, Any]) -> None:
        """Keep how far the model has come."""
        self._write("state.json", told)

    def remove_checkpoints(self, steps: Iterable[int]) -> None:
        """Let go of these; each loses its name first, so that half of one is never looked at."""
        for step in steps:
            path = self.checkpoint(step)
            doomed = path.with_name(f".removing-{path.name}")
            try:
                self._disk.remove(doomed)
                self._disk.rename(path, doomed)
                self._disk.remove(doomed)
            except OSError as error:
                raise DiskError(
                    f"cannot remove the checkpoint: {error.strerror or error}",
                    where=str(path),
                    remedy="check its permissions",
                ) from error

    def make(self) -> None:
        """Make the folders, and remove what a killed process left half done."""
        try:
            for path in (self.checkpoints, self.logs):
                path.mkdir(parents=True, exist_ok=True)
            for path in self.checkpoints.glob(".removing-*"):
                shutil.rmtree(path, ignore_errors=True)
        except OSError as error:
            raise self._cannot("make the model's folder", error) from error

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        if not path.is_file():
            return None
        try:
            told: object = json.loads(read_regular(path))
        except (OSError, ValueError) as error:
            raise EnvironmentFault(
                f"{name} is damaged: {error}", where=str(path), remedy="mend or restore the file"
            ) from error
        return cast("dict[str, Any]", told) if isinstance(told, dict) else {}

    def _write(self, name: str, told: Mapping[str, Any]) -> None:
        text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self._disk.replace_file(self.path / name, text.encode())
        except OSError as error:
            raise self._cannot(f"write {name}", error) from error

    def _cannot(self, doing: str, error: OSError) -> DiskError:
        return DiskError(
            f"cannot {doing}: {error.strerror or error}",
            where=str(self.path),
            remedy="choose another path for the backend, or change its permissions",
        )


def repository_root() -> Path:
    """The nearest folder from the working directory upwards that git calls its own; else the working directory."""
    here = Path.cwd()
    return next((one for one in (here, *here.parents) if (one / ".git").exists()), here)


def find_model(target: str) -> Path | None:
    """The folder of the model that `PROJECT/NAME` names where models lie by default; None where there is none."""
    project, slash, name = target.partition("/")
    if not slash:
        return None
    try:
        for root in (DEFAULT_FOLDER, ART_FOLDER):
            folder = ModelFolder(repository_root() / root, project, name)
            if folder.steps():
                return folder.path
    except ConfigError:  # no such names are given to models
        return None
    return None


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps that have a whole checkpoint in a folder of checkpoints, ascending."""
    if not folder.is_dir():
        return []
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if _STEP.fullmatch(path.name) and (path / "adapter_config.json").is_file()
    )


def check_name(name: object, what: str) -> None:
    """Raise ConfigError for what cannot be the name of a folder of ours."""
    good = isinstance(name, str) and bool(name.strip()) and not name.startswith(".")
    if good and isinstance(name, str):
        good = not set(name) & {"/", "\\", "\0", "\n", "\r", "@"}
        try:
            good = good and len(name.encode()) <= _LONGEST_NAME_BYTES
        except UnicodeEncodeError:
            good = False
    if not good:
        raise ConfigError(
            f"{what} is the name of a folder too; {name!r} cannot be one",
            remedy=f"take a text of at most {_LONGEST_NAME_BYTES} bytes without slashes, @ and line breaks that does not begin with a dot, e.g. agent-001",
        )
