"""LLaMA-Factory's `dataset_info.json`: what each dataset named in a training file is in our settings of rows.

It knows no training. A dataset of pictures, of preferences, or behind a script is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from hone.config.files import read_config
from hone.config.values import Node, fit
from hone.errors import ConfigError, nearest

FILE: Final = "dataset_info.json"
_HEAD_CHARACTERS: Final = 2**18

_ALPACA: Final = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
}
_BOTH: Final = {"system": "system", "tools": "tools"}
_UNREADABLE: Final = {
    "ranking": "rows of preferences belong to training that Hone does not do",
    "script_url": "a dataset's script would be run, and no foreign code is",
    "cloud_file_name": "files in a cloud's store are not fetched: download the file and name it by file_name",
    "folder": "a folder within a hub dataset cannot be named: download it, or name a subset",
}
_MEDIA: Final = ("images", "videos", "audios")
_PREFERENCES: Final = ("chosen", "rejected", "kto_tag")
_TAGS: Final = (
    "role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag",
)  # fmt: skip
_OPENAI: Final = {
    "role_tag": ("role",), "content_tag": ("content",), "user_tag": ("user",), "assistant_tag": ("assistant",),
    "observation_tag": ("tool",), "function_tag": ("function", "assistant", "function_call"), "system_tag": ("system",),
}  # fmt: skip
_KNOWN: Final = (
    "file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "formatting", "subset", "split", "num_samples",
    "columns", "tags", *_UNREADABLE,
)  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """One dataset in our words, as an entry of `data.sources`; and what a user should hear of it."""

    source: dict[str, object]
    remarks: list[str] = field(default_factory=list[str])


def read_datasets(names: list[str], folder: str, *, stage: str) -> list[Dataset]:
    """The datasets of these names, as `dataset_info.json` in `folder` describes them.

    Raises ConfigError for a name that is not in it and for what cannot be read here; NoSuchConfig where there is
    no such file.
    """
    if folder == "ONLINE":
        form = "text" if stage == "pt" else "alpaca"
        return [Dataset({"path": name, "name": name, "format": form}) for name in names]
    if folder.startswith("REMOTE:"):
        raise ConfigError(
            f"dataset_dir: {folder} is a folder of the hub",
            remedy=f"download {FILE} and its files from {folder[7:]}, and name that folder",
        )
    path = Path(folder).expanduser() / FILE
    if not path.is_file():
        raise ConfigError(
            f"dataset_dir: there is no {FILE} in {folder!r}",
            where=str(path),
            remedy="name the folder that holds it; a relative path begins at the current folder",
        )
    entries = read_config(path).entries or {}
    return [_dataset(name, entries, path, stage=stage) for name in names]


def _dataset(name: str, entries: Mapping[str, Node], path: Path, *, stage: str) -> Dataset:
    if name not in entries:
        raise ConfigError(
            f"dataset: {name!r} is not in {FILE}", where=str(path), remedy=nearest(name, entries)
        )
    where = f"{path}:{entries[name].line} ({name})"
    about = fit(entries[name], Any)
    if not isinstance(about, dict):
        raise ConfigError("a dataset is described by an object", where=where)
    told = {k: v for k, v in cast("dict[str, Any]", about).items() if v is not None}
    for key in told:
        if key not in _KNOWN:
            raise ConfigError(
                f"unknown key {key!r} of {FILE}", where=where, remedy=nearest(key, _KNOWN)
            )
    for key, why in _UNREADABLE.items():
        if told.get(key):
            raise ConfigError(
                f"{key}: {why}", where=where, remedy="leave this dataset out, or convert it"
            )
    source: dict[str, object] = {"path": _place(told, path, where), "name": name}
    for key in ("split", "subset"):
        if key in told and not (key == "split" and told[key] == "train"):
            source[key] = told[key]
    remarks: list[str] = []
    if (most := told.get("num_samples")) is not None:
        source["max_rows"] = most
        remarks.append(
            f"num_samples of {name}: its first {most} rows are taken, each once; LLaMA-Factory draws as many by chance"
        )
    _read_shape(told, source, where, stage=stage)
    named = set(_mapping(told, "columns", where).values())
    for key in sorted(
        _first_keys(Path(str(source["path"]))) & {"system", "tools", "history"} - named
    ):
        remarks.append(
            f"{name}: its rows have {key!r}, which columns does not name: it is used here, and left out there"
        )
    return Dataset(source, remarks)


def _first_keys(path: Path) -> set[str]:
    """The keys of the first row of a JSON or JSONL file; none where they cannot be told from its beginning."""
    try:
        with path.open(encoding="utf-8") as stream:
            head = stream.read(_HEAD_CHARACTERS)
        row: object = json.JSONDecoder().raw_decode(head, head.index("{"))[0]
    except (OSError, ValueError):
        return set()
    return set(cast("dict[str, Any]", row)) if isinstance(row, dict) else set()


def _place(told: Mapping[str, Any], path: Path, where: str) -> str:
    if told.get("hf_hub_url"):
        return str(told["hf_hub_url"])
    for key, hub in (("ms_hub_url", "ModelScope"), ("om_hub_url", "openMind")):
        if told.get(key):
            raise ConfigError(
                f"{key}: datasets of {hub} are not fetched",
                where=where,
                remedy="add hf_hub_url, or download it and write file_name",
            )
    if not told.get("file_name"):
        raise ConfigError(
            "the dataset names no rows", where=where, remedy="add file_name or hf_hub_url"
        )
    return str(path.parent / Path(str(told["file_name"])).expanduser())


def _read_shape(
    told: Mapping[str, Any], source: dict[str, object], where: str, *, stage: str
) -> None:
    form = told.get("formatting", "alpaca")
    columns = _mapping(told, "columns", where)
    for key in columns:
        if key in _MEDIA:
            raise ConfigError(
                f"columns.{key}: rows of text alone are trained", where=where, remedy="leave it out"
            )
        if key in _PREFERENCES:
            raise ConfigError(f"columns.{key}: {_UNREADABLE['ranking']}", where=where)
    tags = _mapping(told, "tags", where)
    for key in tags:
        if key not in _TAGS:
            raise ConfigError(f"unknown tag {key!r}", where=where, remedy=nearest(key, _TAGS))
    if form == "alpaca" and stage == "pt":
        source["format"] = "text"
        _rename(source, {"text": str(columns.get("prompt", "instruction"))}, where)
    elif form == "alpaca":
        source["format"] = "alpaca"
        _rename(source, _ours(columns, _ALPACA | _BOTH, where), where)
    elif form == "sharegpt":
        source["format"] = "sharegpt"
        _rename(source, _ours(columns, {"messages": "conversations", **_BOTH}, where), where)
        if tags:
            source["tags"] = tags
    elif form == "openai":
        source["format"] = "messages"
        _rename(
            source,
            _ours(
                {"messages": "conversations"} | columns, {"messages": "messages", **_BOTH}, where
            ),
            where,
        )
        for key, value in tags.items():
            if value not in _OPENAI[key]:
                raise ConfigError(
                    f"tags.{key}: {value!r} is no name of the openai format",
                    where=where,
                    remedy="use formatting: sharegpt",
                )
    else:
        raise ConfigError(
            f"formatting: {form!r} is no format of rows",
            where=where,
            remedy=nearest(str(form), ("alpaca", "openai", "sharegpt")),
        )


def _mapping(told: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    value: object = told.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{key} is a mapping of names", where=where)
    return {str(k): str(v) for k, v in cast("dict[object, object]", value).items() if v is not None}


def _ours(columns: Mapping[str, str], names: Mapping[str, str], where: str) -> dict[str, str]:
    for key in columns:
        if key not in names:
            raise ConfigError(f"unknown column {key!r}", where=where, remedy=nearest(key, names))
    return {names[key]: value for key, value in columns.items()}


def _rename(source: dict[str, object], columns: Mapping[str, str], where: str) -> None:
    """Our columns to theirs, those that are called otherwise."""
    del where
    renamed = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    if renamed:
        source["columns"] = renamed
