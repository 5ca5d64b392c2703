"""Training by LLaMA-Factory where it is installed: its files written into the run's folder, its own command started.

    RUN/llamafactory/train.yaml, dataset_info.json      what it is told
    RUN/                                                what it writes

It runs in an environment of its own (its versions are others than ours), found as `llamafactory-cli` on the PATH or by
HONE_LLAMAFACTORY, the path of that environment's Python.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from hone.config.dialects.choice import recognise
from hone.config.dialects.llamafactory import KEYS
from hone.config.dialects.llamafactory_file import DATASETS, from_ours, their_file
from hone.config.files import read_config
from hone.config.include import read_with_includes
from hone.config.layers import Resolved
from hone.config.values import fit
from hone.config.write import flat_yaml
from hone.data.raw_rows import RawRows
from hone.data.road import row_format
from hone.errors import ConfigError, DiskError, EnvironmentFault, HoneError
from hone.recipes.trained import run_path

VARIABLE: Final = "HONE_LLAMAFACTORY"
_FOLDER: Final = "llamafactory"
_ELSEWHERE: Final = ("ONLINE", "REMOTE:")


@dataclass(frozen=True)
class Order:
    """What LLaMA-Factory is to be told, and where its run lies."""

    folder: Path
    values: dict[str, Any]
    datasets: dict[str, Any]
    """Empty where the file's own `dataset_dir` is used."""

    def write(self) -> Path:
        """Write its files; returns the training file. Raises DiskError."""
        place = self.folder / _FOLDER
        values = dict(self.values)
        try:
            place.mkdir(parents=True, exist_ok=True)
            if self.datasets:
                values["dataset_dir"] = str(place.resolve())
                text = json.dumps(self.datasets, indent=1, ensure_ascii=False)
                (place / DATASETS).write_text(text + "\n", encoding="utf-8")
            (place / "train.yaml").write_text(flat_yaml(values), encoding="utf-8")
        except OSError as error:
            raise DiskError(f"cannot write: {error.strerror}", where=str(place)) from error
        return place / "train.yaml"


def command(environment: Mapping[str, str]) -> list[str]:
    """How LLaMA-Factory is started here. Raises EnvironmentFault where it is not."""
    named = environment.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            raise EnvironmentFault(
                f"{VARIABLE}: no such file: {named}", remedy="name the Python of its environment"
            )
        return [named, "-m", "llamafactory.cli"]
    found = shutil.which("llamafactory-cli", path=environment.get("PATH"))
    if found is None:
        raise EnvironmentFault(
            "--engine llamafactory: LLaMA-Factory is not installed here",
            remedy="leave --engine out, and Hone trains the same file; or `pip install llamafactory` in an environment of "
            f"its own, and set {VARIABLE} to that environment's Python",
        )
    return [found]


def order_of_theirs(file: Path, overrides: Sequence[str]) -> Order | None:
    """What a LLaMA-Factory file says, words of its language over it; None for a file of another language."""
    root = read_with_includes(file)
    found = recognise(root)
    if found is None or found.name != "llamafactory":
        return None
    words: dict[str, str] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if key.strip() not in KEYS:
            raise ConfigError(
                f"{key.strip()} is no key of LLaMA-Factory's",
                where="command line",
                remedy="with --engine llamafactory and its own file, words are of its language: learning_rate=1e-4",
            )
        words[key.strip()] = value
    values = their_file(root, words)
    folder = values.get("output_dir")
    if not isinstance(folder, str):
        raise ConfigError(
            "output_dir is missing", where=str(file), remedy="add output_dir: saves/..."
        )
    return Order(Path(folder), values, _their_datasets(values))


def order_of_ours(resolved: Resolved) -> Order:
    """What our settings come to. Raises ConfigError with everything that LLaMA-Factory cannot be told."""
    path = run_path(resolved.config)
    data = resolved.config.data
    if not Path(data.path).is_file():
        raise ConfigError(
            f"data.path: {data.path!r} is no file",
            remedy="with --engine llamafactory, name a JSON or JSONL file",
        )
    shape = data.format if data.format != "auto" else _shape(resolved)
    values, datasets = from_ours(resolved, output=str(path), shape=shape)
    for about in datasets.values():
        about["file_name"] = str(Path(about["file_name"]).resolve())
    return Order(path, values, datasets)


def train(order: Order, environment: Mapping[str, str] | None = None) -> Path:
    """Write its files and run it to its end, on this terminal; returns the run's folder.

    Raises EnvironmentFault where it is not installed, HoneError where it ends with another code than 0.
    """
    surroundings = os.environ if environment is None else environment
    arguments = [*command(surroundings), "train", str(order.write())]
    done = subprocess.run(arguments, check=False, env=dict(surroundings))  # noqa: S603 - a list, no shell
    if done.returncode:
        raise HoneError(
            f"LLaMA-Factory ended with code {done.returncode}",
            where=str(order.folder / _FOLDER / "train.yaml"),
            remedy="what it wrote above says why",
        )
    return order.folder


def _shape(resolved: Resolved) -> str:
    """The shape of the rows, by the first of them."""
    known = row_format(resolved.config.data)
    for raw in RawRows(resolved.config.data.path):
        known.read(raw.parse())
        break
    return known.shape


def _their_datasets(values: Mapping[str, Any]) -> dict[str, Any]:
    """The datasets that a file names, their places absolute, so that they are found from its new folder."""
    folder = str(values.get("dataset_dir") or "data")
    path = Path(folder).expanduser() / DATASETS
    if folder.startswith(_ELSEWHERE) or not path.is_file():
        return {}
    told = fit(read_config(path), Any)
    entries = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    named = f"{values.get('dataset') or ''},{values.get('eval_dataset') or ''}"
    kept = {
        name.strip(): entries[name.strip()] for name in named.split(",") if name.strip() in entries
    }
    for about in kept.values():
        if isinstance(about, dict) and "file_name" in about:
            about["file_name"] = str((path.parent / str(about["file_name"])).resolve())  # pyright: ignore[reportUnknownArgumentType]
    return kept
