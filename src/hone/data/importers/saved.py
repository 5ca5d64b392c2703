"""A folder written by `save_to_disk` of the package datasets: which Arrow files a split is. It reads no rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, cast

from hone.data.importers.splits import choose_split, refuse_split_of_one
from hone.errors import DataError

_DICT: Final = "dataset_dict.json"
_STATE: Final = "state.json"
_INFO: Final = "dataset_info.json"


def is_saved(folder: Path) -> bool:
    """Whether the folder was written by `save_to_disk`: one dataset, or several splits."""
    return (folder / _DICT).is_file() or (
        (folder / _STATE).is_file() and (folder / _INFO).is_file()
    )


def saved_files(folder: Path, *, split: str | None, prefer: str) -> tuple[str, list[Path]]:
    """The split's name (empty where there is but one nameless) and its Arrow files in order.

    Raises ConfigError, with the names that there are, for a split that is not there; DataError for a
    folder that is not whole.
    """
    if (folder / _DICT).is_file():
        names = _json(folder / _DICT).get("splits")
        if not isinstance(names, list) or not all(isinstance(n, str) for n in cast("Any", names)):
            raise _broken(folder / _DICT, "it names no splits")
        chosen = choose_split(split, cast("list[str]", names), where=str(folder), prefer=prefer)
        _check_plain(chosen, folder / _DICT)
        return chosen, _shards(folder / chosen)
    own = _json(folder / _STATE).get("_split")
    if split is not None and split != own:
        refuse_split_of_one(split, str(folder), own if isinstance(own, str) else None)
    return split or "", _shards(folder)


def _shards(folder: Path) -> list[Path]:
    state = _json(folder / _STATE)
    if state.get("_indices_data_files"):
        raise DataError(
            "the dataset was saved as a selection of rows that are kept apart",
            where=str(folder),
            remedy="save it again with a current version of datasets, or as Parquet",
        )
    listed = state.get("_data_files")
    if not isinstance(listed, list):
        raise _broken(folder / _STATE, "it names no data files")
    files: list[Path] = []
    for entry in cast("list[Any]", listed):
        name: object = cast("Any", entry).get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise _broken(folder / _STATE, "a data file has no name")
        _check_plain(name, folder / _STATE)
        files.append(folder / name)
    return files


def _check_plain(name: str, where: Path) -> None:
    if name in ("", ".", "..") or Path(name).name != name:
        raise _broken(where, f"it names a file outside its folder: {name!r}")


def _json(path: Path) -> dict[str, Any]:
    try:
        value: object = json.loads(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise _broken(path, str(fault)) from fault
    if not isinstance(value, dict):
        raise _broken(path, "it holds no JSON object")
    return cast("dict[str, Any]", value)


def _broken(path: Path, why: str) -> DataError:
    return DataError(
        f"the saved dataset is not whole: {why}", where=str(path), remedy="save the dataset again"
    )
