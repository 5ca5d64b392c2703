"""The flags that `hone train` and `hone plan` share: one declaration, and the setting that each stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hone.cli.inputs import WORDS_HELP, WORDS_METAVAR


def _setting(metavar: str, words: str) -> Any:
    return typer.Option(metavar=metavar, help=words)


Words = Annotated[list[str] | None, typer.Argument(metavar=WORDS_METAVAR, help=WORDS_HELP)]
Model = Annotated[str | None, _setting("FOLDER|HUB_ID", "Model to start from: model.name.")]
Epochs = Annotated[str | None, _setting("NUMBER", "Passes over the rows: train.epochs.")]
PeakRate = Annotated[str | None, _setting("NUMBER", "Peak learning rate: train.learning_rate.")]
BatchSize = Annotated[str | None, _setting("ROWS", "Rows per step: train.batch_size.")]
Output = Annotated[str | None, _setting("FOLDER", "Folder of the run: output.dir.")]
Nproc = Annotated[str | None, _setting("RANKS", "Processes that share a step: compute.nproc.")]
Nnodes = Annotated[str | None, _setting("MACHINES", "Machines together: compute.nnodes.")]
NodeRank = Annotated[str | None, _setting("NUMBER", "Which of them, from 0: compute.node_rank.")]
Endpoint = Annotated[str | None, _setting("HOST:PORT", "Where they meet: compute.rdzv_endpoint.")]
Launcher = Annotated[str | None, _setting("local|ray", "Who starts ranks: compute.launcher.")]
DeepSpeed = Annotated[
    str | None, _setting("zero2|zero3|FILE", "ZeRO by DeepSpeed: compute.deepspeed.")
]
ConfigFile = Annotated[Path | None, _setting("FILE", "Configuration file, YAML or JSON.")]

_SETTINGS: Final = {
    "model": "model.name",
    "epochs": "train.epochs",
    "lr": "train.learning_rate",
    "batch_size": "train.batch_size",
    "output": "output.dir",
    "nproc": "compute.nproc",
    "nnodes": "compute.nnodes",
    "node_rank": "compute.node_rank",
    "rdzv_endpoint": "compute.rdzv_endpoint",
    "launcher": "compute.launcher",
    "deepspeed": "compute.deepspeed",
}


def flags_of(arguments: Mapping[str, Any]) -> dict[str, str | None]:
    """A verb's own arguments by name, to what was typed for each setting; raises KeyError where one is missing."""
    return {setting: arguments[name] for name, setting in _SETTINGS.items()}
