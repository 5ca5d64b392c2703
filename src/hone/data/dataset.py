"""Prepared rows as memory-mapped columns on disk or in memory. It knows no text, no tokenizer and no order."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from hone.data.example import Example, Origin
from hone.errors import DiskError
from hone.pack import Int64

FORMAT = 1
META = "meta.json"

COLUMNS: dict[str, str] = {
    "input_ids": "<i4",  # [all tokens]
    "weight": "<f4",  # [all tokens]
    "example_start": "<i8",  # [examples + 1] into input_ids
    "trained": "<i8",  # [examples] tokens with a weight above 0
    "row_start": "<i8",  # [rows + 1] into examples
    "line": "<i8",  # [rows] 1-based line in the source
    "content": "<u8",  # [rows] hash of what the row says, for the held-out split
}

Columns = dict[str, NDArray[Any]]


class Dataset:
    """Rows of prepared Examples; the row is the unit of a batch.

    A view: `rows` names the rows of the columns that it holds, in order. Nothing is copied until an
    Example is asked for.
    """

    def __init__(
        self, columns: Columns, *, file: str, rows: Sequence[int] | Int64 | None = None
    ) -> None:
        self._columns = columns
        self._file = file
        total = int(columns["line"].shape[0])
        self._rows: Int64 = np.asarray(np.arange(total) if rows is None else rows, dtype=np.int64)
        self._fingerprint: str | None = None

    @property
    def num_rows(self) -> int:
        """Rows in one pass."""
        return int(self._rows.shape[0])

    @property
    def num_examples(self) -> int:
        """Examples of all rows."""
        first, last = self._spans()
        return int((last - first).sum())

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows, as given, before any sharing."""
        starts = self._columns["example_start"]
        first, last = self._spans()
        return int((starts[last] - starts[first]).sum())

    @property
    def num_trained_tokens(self) -> int:
        """Tokens with a weight above 0, of all rows."""
        before: Int64 = np.concatenate(([0], np.cumsum(self._columns["trained"])))
        first, last = self._spans()
        return int((before[last] - before[first]).sum())

    @property
    def longest_example(self) -> int:
        """Tokens of the longest Example."""
        lengths = np.diff(self._columns["example_start"])
        return max(int(lengths[a:b].max()) for a, b in map(self._span, range(self.num_rows)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of ids, weights and boundaries of these rows, in their order."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for name in ("example_start", "row_start", "input_ids", "weight"):
                digest.update(np.ascontiguousarray(self._columns[name]).data)
            digest.update(self._rows.data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def examples(self, row: int) -> list[Example]:
        """The Examples of a row: at least one, each with a trained token."""
        starts = self._columns["example_start"]
        ids, weight = self._columns["input_ids"], self._columns["weight"]
        origin = Origin(self._file, self._line(row))
        first, last = self._span(row)
        spans = [(int(starts[e]), int(starts[e + 1])) for e in range(first, last)]
        return [Example(np.asarray(ids[a:b]), np.asarray(weight[a:b]), origin) for a, b in spans]

    def row_name(self, row: int) -> str:
        """Where the row came from, as `file:line`."""
        return str(Origin(self._file, self._line(row)))

    def tokens(self, row: int) -> int:
        """Tokens of the row's Examples, as given, before any sharing."""
        first, last = self._span(row)
        starts = self._columns["example_start"]
        return int(starts[last] - starts[first])

    def trained_tokens(self, row: int) -> int:
        """Tokens of the row with a weight above 0."""
        first, last = self._span(row)
        return int(self._columns["trained"][first:last].sum())

    def content_hashes(self) -> NDArray[np.uint64]:
        """[rows] a 64-bit name of what each row says, whatever file and line it stands on."""
        return cast("NDArray[np.uint64]", np.asarray(self._columns["content"][self._rows]))

    def view(self, rows: Sequence[int] | Int64) -> Dataset:
        """The same columns with only these of its rows, in this order."""
        return Dataset(self._columns, file=self._file, rows=self._rows[np.asarray(rows, np.int64)])

    def _line(self, row: int) -> int:
        return int(self._columns["line"][self._rows[row]])

    def _span(self, row: int) -> tuple[int, int]:
        starts = self._columns["row_start"]
        at = int(self._rows[row])
        return int(starts[at]), int(starts[at + 1])

    def _spans(self) -> tuple[Int64, Int64]:
        """[rows], [rows] the first Example of each row and the one after its last."""
        starts = self._columns["row_start"]
        return starts[self._rows], starts[self._rows + 1]


class DatasetWriter:
    """Takes rows one by one and writes their columns beside `folder`, then renames; or keeps them in memory.

    Used as a context manager: leaving it without `finish` removes everything it wrote.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._beside = folder and folder.with_name(f".{folder.name}.{os.getpid()}.part")
        self._memory = {name: bytearray() for name in COLUMNS}
        self._files: dict[str, BinaryIO] = {}
        self._digests = {name: hashlib.sha256() for name in COLUMNS}
        self._num_tokens = 0
        self._num_examples = 0

    def __enter__(self) -> DatasetWriter:
        if self._beside is not None:
            with _disk_errors(self._beside):
                _sweep(self._beside.parent, of=self._beside.name.rpartition(".part")[0])
                self._beside.mkdir(parents=True)
                for name in COLUMNS:
                    self._files[name] = (self._beside / name).open("wb")
        self._put("example_start", [0])
        self._put("row_start", [0])
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # what matters was flushed and synced by finish
                file.close()
        if self._beside is not None:
            shutil.rmtree(self._beside, ignore_errors=True)

    def add(self, examples: Sequence[Example], *, line: int, content: int) -> None:
        """Append one row: its Examples, its line and the hash of what it says. Raises DiskError."""
        for example in examples:
            self._num_tokens += example.num_tokens
            self._put("input_ids", example.input_ids)
            self._put("weight", example.weight)
            self._put("example_start", [self._num_tokens])
            self._put("trained", [example.num_trained_tokens])
        self._num_examples += len(examples)
        self._put("row_start", [self._num_examples])
        self._put("line", [line])
        self._put("content", [content])

    def finish(self, about: Mapping[str, Any]) -> Columns:
        """Close the columns, make them durable under their final name, and return them. Raises DiskError.

        `about` is stored beside them as JSON and handed back by `open_columns`.
        """
        if self._folder is None or self._beside is None:
            return {
                name: np.frombuffer(bytes(self._memory[name]), dtype=dtype)
                for name, dtype in COLUMNS.items()
            }
        with _disk_errors(self._folder):
            sizes = {name: file.tell() for name, file in self._files.items()}
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            columns = {
                name: {"bytes": sizes[name], "sha256": self._digests[name].hexdigest()}
                for name in COLUMNS
            }
            meta: dict[str, Any] = {"format": FORMAT, "columns": columns, "about": dict(about)}
            meta["sha256"] = _digest_of(meta)
            with (self._beside / META).open("w", encoding="utf-8") as file:
                json.dump(meta, file)
                file.flush()
                os.fsync(file.fileno())
            shutil.rmtree(self._folder, ignore_errors=True)
            try:
                self._beside.rename(self._folder)
            except OSError as fault:  # another process finished the same content first: use it
                if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        return _map_columns(self._folder)

    def _put(self, name: str, values: Any) -> None:
        data = np.ascontiguousarray(values, dtype=COLUMNS[name]).tobytes()
        if self._beside is None:
            self._memory[name] += data
            return
        self._digests[name].update(data)
        with _disk_errors(self._beside):
            self._files[name].write(data)


def open_columns(folder: Path) -> tuple[Columns, dict[str, Any]] | None:
    """The columns of a finished folder and what was stored beside them; None unless every byte is as written."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        said = meta.pop("sha256")
        if said != _digest_of(meta) or meta["format"] != FORMAT:
            return None
        for name, wanted in meta["columns"].items():
            if (folder / name).stat().st_size != wanted["bytes"]:
                return None
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted["sha256"]:
                    return None
        return _map_columns(folder), dict(meta["about"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _digest_of(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _sweep(folder: Path, *, of: str) -> None:
    """Remove what a killed process left of the same content; one that lives is left alone."""
    key = of.rpartition(".")[0]
    for left in folder.glob(f"{key}.*.part"):
        owner = left.name.split(".")[-2]
        if not (owner.isdigit() and int(owner) != os.getpid() and Path(f"/proc/{owner}").exists()):
            shutil.rmtree(left, ignore_errors=True)


def _map_columns(folder: Path) -> Columns:
    return {
        name: np.memmap(folder / name, dtype=dtype, mode="r")
        if (folder / name).stat().st_size
        else np.zeros(0, dtype=dtype)
        for name, dtype in COLUMNS.items()
    }


@contextlib.contextmanager
def _disk_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as fault:
        raise DiskError(
            f"cannot write prepared rows: {fault.strerror or fault}",
            where=str(path),
            remedy="free some space, or point the cache elsewhere",
        ) from fault
