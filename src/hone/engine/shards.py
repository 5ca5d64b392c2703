"""Tensors of a training state that lie in parts on several ranks, as files: safetensors, and JSON that says what is where.

Every rank writes what it holds; any number of ranks reads, each the part that it needs. Whole files as
`hone.engine.state` writes them are read alike. It knows no model and no optimizer.

    weights-00001-of-00004.safetensors    what rank 1 holds, by name
    weights-00001-of-00004.json           {name: {"shape": of the whole, "first": where the part begins in dimension 0}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor

from hone.engine.progress import Progress
from hone.engine.ranks import Ranks
from hone.engine.state import (
    PROGRESS,
    of_another_run,
    read_random_state,
    save_tensors,
    write_random_state,
)

_PART = re.compile(r"-(\d{5})-of-(\d{5})\.json")


@dataclass(frozen=True)
class Shard:
    """Where a part stands in its whole: in rows of dimension 0, `first` and those after it."""

    shape: tuple[int, ...]
    """Of the whole."""
    first: int = 0

    @classmethod
    def whole(cls, tensor: Tensor) -> Shard:
        """All of a tensor."""
        return cls(tuple(tensor.shape))


def write_parts(
    folder: Path,
    *,
    weights: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    shards: Mapping[str, Shard],
    progress: Progress,
    ranks: Ranks,
) -> None:
    """Write what this rank holds of the training state: `shards` says by name where each weight's part stands.

    `kept` is what the optimizer keeps, by `<moment>/<name>`: what has the shape of its weight stands where the
    weight does; anything else is whole. OSError where the disk refuses.
    """
    here = {"rank": ranks.rank, "world": ranks.world}
    write_part(folder, "weights", weights, shards, **here)
    write_part(folder, "optimizer", kept, _shards_of(kept, weights, shards), **here)
    write_random_state(folder, **here)
    if ranks.is_first:
        (folder / PROGRESS).write_bytes(progress.encode())


def read_parts(
    folder: Path,
    *,
    weights: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    shards: Mapping[str, Shard],
    ranks: Ranks,
) -> Progress:
    """Fill what this rank holds, from a state of any number of ranks; the arguments as in `write_parts`, a
    weight without a Shard being whole. Raises EnvironmentFault where the files belong to another model or
    version."""
    try:
        read_weight_parts(folder, weights=weights, shards=shards)
        with Parts.opened(folder, "optimizer") as parts:
            _fill_all(parts, kept, _shards_of(kept, weights, shards))
        read_random_state(folder, rank=ranks.rank, world=ranks.world)
        return read_progress(folder)
    except (OSError, ValueError, SafetensorError) as error:
        raise of_another_run(folder, str(error)) from error


def read_weight_parts(
    folder: Path, *, weights: Mapping[str, Tensor], shards: Mapping[str, Shard]
) -> None:
    """Fill only the weights. EnvironmentFault as in `read_parts`."""
    try:
        with Parts.opened(folder, "weights") as parts:
            _fill_all(parts, weights, shards)
    except (OSError, ValueError, SafetensorError) as error:
        raise of_another_run(folder, str(error)) from error


def read_progress(folder: Path) -> Progress:
    """How far the run had come."""
    return Progress.decode((folder / PROGRESS).read_bytes())


def _fill_all(parts: Parts, tensors: Mapping[str, Tensor], shards: Mapping[str, Shard]) -> None:
    odd = sorted({n for n in parts.names if not n.startswith("random/")} - set(tensors))
    if odd:
        raise ValueError(f"{odd[0]} is only in the checkpoint")
    for name, tensor in tensors.items():
        parts.fill(tensor, name, shards.get(name) or Shard.whole(tensor))


def _shards_of(
    kept: Mapping[str, Tensor], weights: Mapping[str, Tensor], shards: Mapping[str, Shard]
) -> dict[str, Shard]:
    """Where the tensors of an optimizer stand, by `<moment>/<name>`."""
    found: dict[str, Shard] = {}
    for key, tensor in kept.items():
        name = key.partition("/")[2]
        if name in shards and tensor.shape == weights[name].shape:
            found[key] = shards[name]
    return found


def is_in_parts(folder: Path) -> bool:
    """Whether the state in `folder` was written by several ranks."""
    return any(_PART.search(path.name) for path in folder.iterdir())


def write_part(
    folder: Path,
    stem: str,
    tensors: Mapping[str, Tensor],
    shards: Mapping[str, Shard],
    *,
    rank: int,
    world: int,
) -> None:
    """Write one rank's part of the tensors called `stem`. OSError where the disk refuses.

    Parts with no rows are left out; a tensor without a Shard is whole, and the same on every rank that writes it.
    """
    held = {name: t for name, t in tensors.items() if t.numel() > 0}
    told = {name: shards.get(name) or Shard.whole(tensor) for name, tensor in held.items()}
    name = f"{stem}-{rank:05d}-of-{world:05d}"
    save_tensors(held, folder / f"{name}.safetensors")
    index = {key: {"shape": list(one.shape), "first": one.first} for key, one in told.items()}
    (folder / f"{name}.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


class Parts:
    """The tensors called `stem` of a saved state, whoever wrote them. ValueError where something does not fit."""

    def __init__(self, found: Mapping[str, list[tuple[Shard, Any]]]) -> None:
        self._found = found

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, stem: str) -> Generator[Parts]:
        """Open all files of `stem`, until the block ends."""
        found: dict[str, list[tuple[Shard, Any]]] = {}
        with ExitStack() as stack:
            for index, path in _files(folder, stem):
                opened: Any = safetensors.safe_open(path, framework="pt", device="cpu")
                file = stack.enter_context(opened)
                for name in cast("list[str]", list(file.keys())):
                    told = index.get(name)
                    if told is None:
                        told = Shard(tuple(file.get_slice(name).get_shape()))
                    found.setdefault(name, []).append((told, file))
            yield cls(found)

    @property
    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self._found)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor."""
        return self._found[name][0][0].shape

    def fill(self, into: Tensor, name: str, shard: Shard) -> None:
        """Copy the rows that `shard` names into a tensor that holds just those."""
        parts = self._found.get(name)
        if parts is None:
            raise ValueError(f"{name} is not in the checkpoint")
        if parts[0][0].shape != shard.shape:
            raise ValueError(f"{name} has another shape")
        if not shard.shape:
            _copy(into, parts[0][1].get_tensor(name), name)
            return
        rows = into.shape[0]
        filled = 0
        for saved, file in sorted(parts, key=lambda part: part[0].first):
            piece = file.get_slice(name)
            low = max(shard.first + filled, saved.first)
            high = min(shard.first + rows, saved.first + int(piece.get_shape()[0]))
            if low != shard.first + filled or high <= low:
                continue
            _copy(
                into[filled : filled + high - low],
                piece[low - saved.first : high - saved.first],
                name,
            )
            filled += high - low
        if filled != rows:
            raise ValueError(f"rows of {name} are missing")


def _files(folder: Path, stem: str) -> Iterator[tuple[dict[str, Shard], Path]]:
    """Each file with its index; the file of a whole state has none."""
    whole = folder / f"{stem}.safetensors"
    if whole.is_file():
        yield {}, whole
        return
    indexes = sorted(folder.glob(f"{stem}-*-of-*.json"))
    worlds = {int(cast("re.Match[str]", _PART.search(path.name))[2]) for path in indexes}
    if len(worlds) != 1 or len(indexes) != worlds.pop():
        raise ValueError(f"parts of {stem} are missing")
    for path in indexes:
        told: dict[str, Any] = json.loads(path.read_bytes())
        index = {
            name: Shard(tuple(int(n) for n in one["shape"]), int(one["first"]))
            for name, one in told.items()
        }
        yield index, path.with_suffix(".safetensors")


def _copy(into: Tensor, saved: Tensor, name: str) -> None:
    if saved.shape != into.shape or saved.dtype != into.dtype:
        raise ValueError(f"{name} has another shape or type")
    with torch.no_grad():
        into.copy_(saved)
