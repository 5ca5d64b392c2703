"""Rows of one or more prepared files, numbered through, as training sees them. It knows no text and no steps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hone.data.example import Example
from hone.data.prepared import PreparedFile
from hone.pack import Int64


@dataclass(frozen=True)
class Figures:
    """What is known of rows by those that are prepared."""

    rows: int
    examples: int
    tokens: int
    trained_tokens: int
    longest: int
    """Tokens of the longest Example."""
    ready: int
    """Rows that the figures rest on."""

    @property
    def is_estimate(self) -> bool:
        """Whether some rows are not prepared yet; then counts are scaled up, and a longer row may come."""
        return self.ready < self.rows


class Dataset:
    """A view of prepared files; the row is the unit of a batch. A row that was dropped has no Examples.

    `rows` names the rows that it holds, in order, numbered through all files; all of them by default.
    """

    def __init__(
        self, files: Sequence[PreparedFile], *, rows: Sequence[int] | Int64 | None = None
    ) -> None:
        self._files = tuple(files)
        self._first: Int64 = np.cumsum([0, *(one.index.num_rows for one in files)], dtype=np.int64)
        every = np.arange(int(self._first[-1]), dtype=np.int64)
        self._rows: Int64 = every if rows is None else np.asarray(rows, dtype=np.int64)

    @property
    def files(self) -> tuple[PreparedFile, ...]:
        """Where its rows come from, in the order in which they are numbered."""
        return self._files

    @property
    def num_rows(self) -> int:
        """Rows in one pass, those that the length limit drops included."""
        return int(self._rows.shape[0])

    @property
    def is_complete(self) -> bool:
        """Whether every row of its files is prepared."""
        return all(file.is_complete for file in self._files)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides these rows: content, settings, and which of them."""
        digest = hashlib.sha256()
        for file in self._files:
            digest.update(file.key.encode())
        digest.update(self._rows.tobytes())
        return digest.hexdigest()

    @property
    def row_counts(self) -> tuple[int, ...]:
        """Rows of this view from each file, where they stand in the order of the files."""
        edges = np.searchsorted(np.sort(self._rows), self._first)
        return tuple(int(n) for n in np.diff(edges))

    def examples(self, row: int) -> list[Example]:
        """The Examples of a row, each with a trained token; none where the row is dropped. Waits until it
        is prepared. Raises DataError."""
        file, number = self._place(row)
        return file.examples(number)

    def row_name(self, row: int) -> str:
        """Where the row came from, as `file:line`."""
        file, number = self._place(row)
        return str(file.origin(number))

    def view(self, rows: Sequence[int] | Int64) -> Dataset:
        """The same files with only these of its rows, in this order."""
        return Dataset(self._files, rows=self._rows[np.asarray(rows, np.int64)])

    def ensure(self, rows: Sequence[int] | Int64) -> None:
        """Return when these rows are prepared. Raises DataError."""
        for file, numbers in self.places(rows):
            file.ensure(numbers.tolist())

    def largest(self, count: int) -> Int64:
        """The rows with the most bytes, at most `count` of them."""
        sizes = np.concatenate([file.index.size for file in self._files])[self._rows]
        return np.argsort(-sizes, kind="stable")[:count].astype(np.int64)

    def figures(self) -> Figures:
        """Counts by the rows that are prepared; scaled up where some are not."""
        found: Int64 = np.zeros(5, dtype=np.int64)
        for file, numbers in self._by_file(self._rows):
            own = file.figures(numbers)
            found[:4] += own[:4]
            found[4] = max(found[4], own[4])
        ready = int(found[0])
        scale = self.num_rows / ready if ready else 0.0
        examples, tokens, trained = (round(int(found[i]) * scale) for i in (1, 2, 3))
        return Figures(
            rows=self.num_rows,
            examples=examples,
            tokens=tokens,
            trained_tokens=trained,
            longest=int(found[4]),
            ready=ready,
        )

    def content_hashes(self) -> NDArray[np.uint64]:
        """[rows] a 64-bit name of what each row says; the files must have been indexed with contents."""
        return np.concatenate([file.index.content for file in self._files])[self._rows]

    def _place(self, row: int) -> tuple[PreparedFile, int]:
        number = int(self._rows[row])
        at = int(np.searchsorted(self._first, number, side="right")) - 1
        return self._files[at], number - int(self._first[at])

    def places(self, rows: Sequence[int] | Int64) -> list[tuple[PreparedFile, Int64]]:
        """For each file: the numbers that these rows have in it, in order."""
        return list(self._by_file(self._rows[np.asarray(rows, dtype=np.int64)]))

    def _by_file(self, numbers: Int64) -> Iterator[tuple[PreparedFile, Int64]]:
        for at, file in enumerate(self._files):
            own = numbers[(numbers >= self._first[at]) & (numbers < self._first[at + 1])]
            own -= self._first[at]
            yield file, own
