"""A segment: some prepared rows in one file that is written whole or not at all. It knows no text and no order."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from hone.data.example import Example, Origin
from hone.errors import DiskError
from hone.pack import Float32, Int32, Int64

SUFFIX: Final = ".safetensors"
_TYPES: Final = {"I64": "<i8", "I32": "<i4", "F32": "<f4"}
_NAME_DIGITS: Final = 32


class Segment:
    """Prepared rows, in the order in which they were prepared.

    Arrays: `row` int32[R], the row's number in its file's index; `row_start` int64[R + 1] into Examples;
    `example_start` int64[E + 1] into `input_ids` int32[T]; `run_start` int64[E + 1] into runs of equal
    weight: `run_stop` int32[W], counted from the Example's beginning, and `run_weight` float32[W].
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
        self._arrays = arrays
        self.about = about
        """Plain JSON that was stored with it."""
        self.row: Int32 = np.asarray(arrays["row"], dtype=np.int32)
        self._row_start: Int64 = np.asarray(arrays["row_start"])
        self._example_start: Int64 = np.asarray(arrays["example_start"])
        self._run_start: Int64 = np.asarray(arrays["run_start"])

    @classmethod
    def of(cls, rows: Sequence[tuple[int, Sequence[Example]]], about: Mapping[str, Any]) -> Segment:
        """The segment of (number, Examples) of each row."""
        examples = [example for _, found in rows for example in found]
        lengths = [example.num_tokens for example in examples]
        starts: Int64 = np.cumsum([0, *lengths], dtype=np.int64)
        ids = [np.zeros(0, np.int32), *(example.input_ids for example in examples)]
        weights = [np.zeros(0, np.float32), *(example.weight for example in examples)]
        weight: Float32 = np.concatenate(weights)
        stops = _run_stops(weight, starts)
        run_start = np.searchsorted(stops, starts, side="right").astype(np.int64)
        owner = np.repeat(np.arange(len(examples)), np.diff(run_start))
        made = cls(
            {
                "row": np.array([number for number, _ in rows], dtype=np.int32),
                "row_start": np.cumsum([0, *(len(found) for _, found in rows)], dtype=np.int64),
                "example_start": starts,
                "input_ids": np.concatenate(ids).astype(np.int32, copy=False),
                "run_start": run_start,
                "run_stop": (stops - starts[owner]).astype(np.int32),
                "run_weight": weight[stops - 1].astype(np.float32),
            },
            {},
        )
        made.about = {**about, "totals": totals(made.figures).tolist()}
        return made

    @property
    def num_tokens(self) -> int:
        """Tokens of all its rows."""
        return int(self._example_start[-1])

    def examples(self, place: int, origin: Origin) -> list[Example]:
        """The Examples of the row that stands at `place` in it."""
        first, last = int(self._row_start[place]), int(self._row_start[place + 1])
        return [self._example(number, origin) for number in range(first, last)]

    @property
    def totals(self) -> Int64:
        """[5] of all its rows, as `totals` counts; stored with it, so that no array is touched."""
        return np.array(self.about["totals"], dtype=np.int64)

    @property
    def figures(self) -> Int64:
        """[4, R] Examples, tokens, trained tokens and tokens of the longest Example of each row."""
        stops = np.asarray(self._arrays["run_stop"], dtype=np.int64)
        first_run = np.zeros(stops.shape[0], dtype=np.bool_)
        first_run[self._run_start[:-1]] = True
        lengths = stops - np.where(first_run, 0, np.roll(stops, 1))
        trained = np.where(np.asarray(self._arrays["run_weight"]) > 0, lengths, 0)
        by_example = _sums(trained, self._run_start)
        tokens = np.diff(self._example_start)
        longest = np.zeros(self.row.shape[0], dtype=np.int64)
        owner: Int64 = np.repeat(
            np.arange(self.row.shape[0], dtype=np.int64), np.diff(self._row_start)
        )
        np.maximum.at(longest, owner, tokens)
        counts = np.diff(self._row_start)
        sums = (_sums(values, self._row_start) for values in (tokens, by_example))
        told: Int64 = np.stack([counts, *sums, longest])
        return told

    def save(self, folder: Path) -> Path:
        """Write it into `folder` under the name of its content: two writers of the same rows do no harm.

        Raises DiskError.
        """
        metadata = {"about": json.dumps(self.about, sort_keys=True)}
        data = save({name: np.asarray(array) for name, array in self._arrays.items()}, metadata)
        path = folder / f"{hashlib.sha256(data).hexdigest()[:_NAME_DIGITS]}{SUFFIX}"
        beside = folder / f".{path.stem}.{os.getpid()}.part"
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        return path

    def _example(self, number: int, origin: Origin) -> Example:
        a, b = int(self._example_start[number]), int(self._example_start[number + 1])
        first, last = int(self._run_start[number]), int(self._run_start[number + 1])
        stops = np.asarray(self._arrays["run_stop"][first:last], dtype=np.int64)
        weight: Float32 = np.repeat(
            np.asarray(self._arrays["run_weight"][first:last]), np.diff(stops, prepend=0)
        )
        ids: Int32 = np.asarray(self._arrays["input_ids"][a:b])
        return Example(ids, weight, origin)


def totals(figures: Int64) -> Int64:
    """[5] rows, Examples, tokens, trained tokens, and the tokens of the longest Example, of [4, R] figures."""
    return np.array(
        [figures.shape[1], *figures[:3].sum(axis=1), figures[3].max(initial=0)], dtype=np.int64
    )


def _sums(values: Int64, starts: Int64) -> Int64:
    """Sums of values[starts[i]:starts[i + 1]]."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    return before[starts[1:]] - before[starts[:-1]]


def _run_stops(weight: Float32, starts: Int64) -> Int64:
    """[W] where each run of equal weight ends; a run never crosses the end of an Example."""
    changes = np.flatnonzero(weight[1:] != weight[:-1]) + 1
    stops = np.union1d(changes, starts[1:])
    return stops.astype(np.int64)


def open_segment(path: Path) -> Segment | None:
    """The segment in a file, memory-mapped; None unless every byte is as written."""
    try:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest()[:_NAME_DIGITS] != path.stem:
                return None
            file.seek(0)
            size = int.from_bytes(file.read(8), "little")
            header = cast("dict[str, Any]", json.loads(file.read(size)))
        about = json.loads(header.pop("__metadata__")["about"])
        whole = np.memmap(path, mode="r", dtype=np.uint8)
        arrays: dict[str, NDArray[Any]] = {}
        for name, told in header.items():
            a, b = (8 + size + int(offset) for offset in told["data_offsets"])
            arrays[name] = whole[a:b].view(_TYPES[told["dtype"]])
        # Read and not mapped: to touch one page of a mapped file brings in its neighbours, of every segment.
        first, last = (int(offset) for offset in header["row"]["data_offsets"])
        with path.open("rb") as file:
            file.seek(8 + size + first)
            arrays["row"] = np.frombuffer(file.read(last - first), dtype=_TYPES["I32"])
        return Segment(arrays, about)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


@contextlib.contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Within, what the disk refuses is raised as DiskError."""
    try:
        yield
    except OSError as fault:
        raise DiskError(
            f"cannot write prepared rows: {fault.strerror or fault}",
            where=str(path),
            remedy="free some space, or point the cache elsewhere (HONE_CACHE)",
        ) from fault
