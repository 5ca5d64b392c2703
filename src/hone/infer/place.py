"""What a name stands for: a run, a checkpoint, an adapter or a model, and where its parts lie. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hone.config.sections import Config, ModelSection
from hone.errors import EnvironmentFault, ModelError, nearest
from hone.models.saved_adapter import CONFIG as ADAPTER_CONFIG
from hone.models.saved_adapter import read_adapter
from hone.models.source import check_weights, find_model
from hone.runs.checkpoint import MANIFEST, find_latest, read_checkpoint
from hone.runs.folder import RunFolder, find_runs

_RUNS = Path("runs")


@dataclass(frozen=True)
class Place:
    """Where the weights of a conversation partner lie.

    `model`: `folder` is a model folder, and `base` the same. `adapter`: `folder` holds an adapter for the
    model in `base`. `checkpoint`: `folder` holds trained weights of a run that began from `base`.
    """

    kind: Literal["model", "adapter", "checkpoint"]
    folder: Path
    base: Path
    config: Config | None = None
    """Settings of the run, where it is one."""
    notices: tuple[str, ...] = ()

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer's files lie."""
        return self.folder if (self.folder / "tokenizer.json").is_file() else self.base


def find_place(name: str, *, revision: str | None = None, root: Path = _RUNS) -> Place:
    """What lies at the path `name`, else the run of that name in `root`, else the hub's model of that id.

    Raises ModelError and EnvironmentFault where there is nothing to talk to.
    """
    path = Path(name).expanduser()
    if not path.is_dir() and (root / name).is_dir():
        path = root / name
    if path.is_dir():
        if RunFolder(path).is_run:
            return _in_run(RunFolder(path))
        if (path / MANIFEST).is_file():
            return _in_checkpoint(path)
    elif not path.exists():
        path = _on_the_hub(name, revision, root)
    else:
        raise ModelError(
            f"{name} is a file", remedy="name a run, an adapter folder or a model folder"
        )
    if (path / ADAPTER_CONFIG).is_file():
        return _adapter(path, None)
    if not (path / "config.json").is_file():
        raise ModelError(
            "neither a run nor a model: no run.json, no adapter_config.json, no config.json",
            where=str(path),
            remedy="name a run, an adapter folder, a model folder or a hub id",
        )
    check_weights(path)
    return Place("model", path, base=path)


def _on_the_hub(name: str, revision: str | None, root: Path) -> Path:
    try:
        return find_model(ModelSection(name=name, revision=revision))
    except ModelError as error:
        runs = [run.name for run in find_runs(root)]
        if "/" in name or not runs:
            raise
        raise ModelError(
            f"no run or folder {name!r}, and no such model: {error.what}",
            remedy=f"a run: {nearest(name, runs)}",
        ) from error


def _in_run(run: RunFolder) -> Place:
    """The artifact of a finished run, else its newest checkpoint."""
    identity = run.read_identity() or {}
    config = _config(identity, run.path)
    if identity.get("finished"):
        if config.tuning.is_adapter:
            return _adapter(run.path, config)
        check_weights(run.path)
        return Place("model", run.path, base=run.path, config=config)
    notices: list[str] = []
    found = find_latest(
        run.checkpoints_folder, lambda _, **said: notices.append(str(said["message"]))
    )
    if found is None:
        raise EnvironmentFault(
            "this run is not finished and has no checkpoint yet",
            where=str(run.path),
            remedy="wait for its first checkpoint, or resume it: the command stands in its events.jsonl",
        )
    notices.append(f"this run is not finished: its checkpoint of step {found.step} answers")
    base = find_model(config.model)
    return Place("checkpoint", found.path, base=base, config=config, notices=tuple(notices))


def _in_checkpoint(path: Path) -> Place:
    found = read_checkpoint(path)
    run = RunFolder(path.resolve().parent.parent)
    if not run.is_run:
        raise EnvironmentFault(
            "this checkpoint lies outside its run, whose settings are needed",
            where=str(path),
            remedy="put it back into RUN/checkpoints/",
        )
    config = _config(run.read_identity() or {}, run.path)
    return Place("checkpoint", found.path, base=find_model(config.model), config=config)


def _config(identity: dict[str, Any], folder: Path) -> Config:
    try:
        return Config.model_validate(identity.get("config") or {})
    except ValueError as error:
        raise EnvironmentFault(
            "the settings in run.json are of another version of Hone, or damaged",
            where=str(folder),
            remedy="use the version that made the run, or train again",
        ) from error


def _adapter(folder: Path, config: Config | None) -> Place:
    named = str(read_adapter(folder)["base_model_name_or_path"])
    beside = folder / named
    if not Path(named).expanduser().is_dir() and beside.is_dir():
        base = beside
    else:
        try:
            base = find_model(ModelSection(name=named))
        except ModelError as error:
            raise ModelError(
                f"the adapter's base is not there: {error.what}",
                where=str(folder / ADAPTER_CONFIG),
                remedy="put the base back, or set base_model_name_or_path to where it is",
            ) from error
    check_weights(base)
    return Place("adapter", folder, base=base, config=config)
