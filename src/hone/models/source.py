"""Where a model's files are: a local folder or a hub snapshot, checked before anything loads. No torch.

It opens JSON and safetensors headers only; nothing found in a model folder is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hone.config.model_json import INDEX_BYTES, read_model_json
from hone.errors import ModelError

if TYPE_CHECKING:
    from hone.config.sections import ModelSection

_NOTES = "__metadata__"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.tiktoken", "*.txt"]


def find_model(section: ModelSection) -> Path:
    """The folder that holds the model's files; a hub id is downloaded (safetensors and text only).

    Raises ModelError where there is no such folder and no such repository within reach.
    """
    folder = Path(section.name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(
            f"model.name is a file: {section.name}",
            remedy="name the folder that holds config.json and the safetensors files",
        )
    if section.name.count("/") > 1 or section.name.startswith((".", "/", "~")):
        raise ModelError(f"no such model folder: {section.name}", remedy="check the path")
    return _download(section)


def _download(section: ModelSection) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    remedy = "name a local folder, or check the id, the network and (for gated models) HF_TOKEN"
    try:
        path: str = huggingface_hub.snapshot_download(
            section.name,
            revision=section.revision,
            allow_patterns=_HUB_FILES,
            token=os.environ.get("HF_TOKEN") or None,
        )
    except HFValidationError as error:
        raise ModelError(f"no such model: {section.name}", remedy=remedy) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"cannot fetch {section.name}: {first}", remedy=remedy) from error
    return Path(path)


def read_config(folder: Path) -> dict[str, Any]:
    """The model's `config.json`, refused where it asks for code or for private switches."""
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            f"no config.json in {folder}", remedy="name a folder saved by save_pretrained"
        )
    config = read_model_json(path)
    if not isinstance(config.get("model_type"), str):
        raise ModelError(f"no model_type in {path}", remedy="name a transformers model folder")
    private = [key for key in config if key.startswith("_") and key.endswith("_internal")]
    if private:
        raise ModelError(
            f"{path} sets the private switch {private[0]!r}, which can load code",
            remedy="remove the key, or use the model from its first source",
        )
    return config


def check_weights(folder: Path) -> list[str]:
    """Refuse a folder whose weights are missing or pickled; return names of pickles that are ignored.

    Every shard that the index names must be there with a readable safetensors header.
    """
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    files = weight_files(folder)
    if not files and pickles:
        raise ModelError(
            f"the weights in {folder} are pickled ({pickles[0]}): loading them could run code",
            remedy="convert them to safetensors where they come from; Hone never opens a pickle",
        )
    if not files:
        raise ModelError(
            f"no weights in {folder}: neither model.safetensors nor its index",
            remedy="a folder with only a tokenizer serves `hone preview`; training needs weights",
        )
    for file in files:
        _check_header(file)
    return pickles


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model's weights: one, or those that the index names; none where there
    are none. Raises ModelError for a damaged index."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(_index_names(index)))]
    alone = folder / "model.safetensors"
    return [alone] if alone.is_file() else []


def _index_names(index: Path) -> list[str]:
    named: object = read_model_json(index, INDEX_BYTES).get("weight_map")
    if not isinstance(named, dict):
        raise ModelError(f"damaged index: {index}", remedy="restore the file")
    names: list[Any] = list(cast("dict[str, Any]", named).values())
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(
                f"{index} names a file outside its folder: {name!r}", remedy="restore the file"
            )
    return names


def _check_header(path: Path) -> None:
    """A safetensors file starts with the length of its JSON header (8 bytes, little-endian)."""
    if not path.is_file():
        raise ModelError(f"missing weights: {path}", remedy="fetch the model again")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        whole = 0 < length <= min(100_000_000, size - 8)
        try:
            header: object = json.loads(file.read(length)) if whole else None
            entries = cast("dict[str, Any]", header).items()
            ends = [int(about["data_offsets"][1]) for name, about in entries if name != _NOTES]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(
                f"damaged or not safetensors: {path}", remedy="fetch the file again"
            ) from error
    if 8 + length + max(ends, default=0) != size:
        raise ModelError(f"truncated weights: {path}", remedy="fetch the file again")


def fingerprint(folder: Path) -> str:
    """sha256 over config, and over name, size and header of each weights file: which model this is."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("model*.safetensors")):
        digest.update(f"{path.name}:{path.stat().st_size}".encode())
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            digest.update(file.read(min(length, 100_000_000)))
            digest.update(file.read(1 << 20))  # the first weights themselves
    return digest.hexdigest()
