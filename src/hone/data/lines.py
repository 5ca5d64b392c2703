"""The line index: where every row of a file stands, found by reading it once, in parts. It knows no templates.

A part is a range of bytes; a row belongs to the part in which its line begins, so that parts can be read by
several processes and put together in order.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import numpy as np

from hone.data.example import Origin
from hone.data.reader import Row, RowReader, is_blank, lines_in
from hone.data.strict import parse_row
from hone.errors import DataError
from hone.pack import Int32, Int64, UInt64

PART_BYTES: Final = 16 * 2**20
_CHUNK_BYTES: Final = 2**20
_BOM: Final = b"\xef\xbb\xbf"


class Content(Protocol):
    """What a row says; `hone.data.conversation.Conversation` is one."""

    def content_hash(self) -> int:
        """A 64-bit name of it."""
        ...


Read = Callable[[Row], Content]
"""Raises DataError for a row that cannot be used."""


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used: its line, what is wrong, where within the row, and what to do."""

    line: int
    what: str
    within: str
    remedy: str | None

    @classmethod
    def of(cls, error: DataError, origin: Origin) -> Fault:
        """What an error says of the row at `origin`."""
        within = (error.where or "").removeprefix(str(origin)).strip()
        return cls(origin.line, error.what, within, error.remedy)

    def error(self, file: str) -> DataError:
        """The error, under the file's name."""
        where = f"{Origin(file, self.line)} {self.within}".strip()
        return DataError(self.what, where=where, remedy=self.remedy)


@dataclass(frozen=True)
class Part:
    """The rows of one part; lines count from 0 at its first line."""

    start: Int64  # [rows] byte at which the row begins
    size: Int32  # [rows] bytes of the row
    line: Int32  # [rows]
    content: UInt64  # [rows] a name of what each row says, or [0]
    lines: int
    blank_lines: int
    digest: str
    faults: tuple[Fault, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For another process."""
        return {
            "start": self.start.tolist(),
            "size": self.size.tolist(),
            "line": self.line.tolist(),
            "content": self.content.tolist(),
            "lines": self.lines,
            "blank_lines": self.blank_lines,
            "digest": self.digest,
            "faults": [[f.line, f.what, f.within, f.remedy] for f in self.faults],
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Part:
        """What `to_json` gave."""
        faults = tuple(Fault(*fault) for fault in told["faults"])
        return cls(
            start=np.array(told["start"], dtype=np.int64),
            size=np.array(told["size"], dtype=np.int32),
            line=np.array(told["line"], dtype=np.int32),
            content=np.array(told["content"], dtype=np.uint64),
            lines=told["lines"],
            blank_lines=told["blank_lines"],
            digest=told["digest"],
            faults=faults,
        )


@dataclass(frozen=True)
class LineIndex:
    """Every usable row of a file: where it begins, how long it is, and on which 1-based line it stands."""

    start: Int64  # [rows]
    size: Int32  # [rows]
    line: Int32  # [rows]
    content: UInt64  # [rows] a name of what each row says, or [0]
    blank_lines: int = 0
    had_bom: bool = False
    faults: tuple[Fault, ...] = ()
    """Rows left out."""

    @property
    def num_rows(self) -> int:
        """Rows that can be used."""
        return int(self.start.shape[0])


class _Rows:
    """The rows found so far, and those left out."""

    def __init__(self, read: Read, *, keep_faults: bool, contents: bool) -> None:
        self._read = read
        self._keep_faults = keep_faults
        self._contents = contents
        self.places: list[tuple[int, int, int]] = []
        self.content: list[int] = []
        self.faults: list[Fault] = []

    def add(self, origin: Origin, start: int, size: int, row: Callable[[], Row]) -> bool:
        """Take a row in, or note what is wrong with it; False where nothing may follow."""
        try:
            said = self._read(row())
        except DataError as error:
            self.faults.append(Fault.of(error, origin))
            return self._keep_faults
        self.places.append((start, size, origin.line))
        if self._contents:
            self.content.append(said.content_hash())
        return True

    def columns(self) -> tuple[Int64, Int32, Int32, UInt64]:
        """Start, size, line and content of each row."""
        found = np.array(self.places, dtype=np.int64).reshape(-1, 3)
        start = np.ascontiguousarray(found[:, 0])
        size, line = (found[:, i].astype(np.int32) for i in (1, 2))
        return start, size, line, np.array(self.content, dtype=np.uint64)


def read_part(
    file: str,
    begin: int,
    end: int,
    *,
    read: Read,
    keep_faults: bool,
    contents: bool,
    skim: Callable[[bytes], bool] | None = None,
) -> Part:
    """The lines that begin in bytes [begin, end) of a JSONL file.

    `skim` tells of most good rows that `read` would take them, in less time. With `keep_faults` every bad row is listed and left out; without, the first one ends the part.
    Raises DataError for a line that is too long, OSError.
    """
    rows = _Rows(read, keep_faults=keep_faults, contents=contents)
    skim = None if contents else skim
    blank, number = 0, -1
    with Path(file).open("rb") as stream:
        at = first_line(stream, begin)
        for number, start, data in lines_in(stream, file, at, end):
            if is_blank(data):
                blank += 1
                continue
            if skim is not None and skim(data):
                rows.places.append((start, len(data), number))
                continue
            origin = Origin(file, number)
            row = partial(_row, data, origin, start)
            if not rows.add(origin, start, len(data), row):
                break
    return Part(*rows.columns(), number + 1, blank, digest(file, begin, end), tuple(rows.faults))


def _row(data: bytes, origin: Origin, start: int) -> Row:
    return Row(parse_row(data, origin), origin, len(data), start)


def first_line(stream: BinaryIO, begin: int) -> int:
    """Move to the first line that begins at or after a byte, after any byte order mark; returns where that is."""
    if begin == 0:
        at = len(_BOM) if stream.read(len(_BOM)) == _BOM else 0
        stream.seek(at)
        return at
    stream.seek(begin - 1)
    at = begin - 1
    while piece := stream.readline(_CHUNK_BYTES):
        at += len(piece)
        if piece.endswith(b"\n"):
            break
    return at


def digest(file: str, begin: int, end: int) -> str:
    """SHA-256 (hex) of bytes [begin, end). Raises OSError."""
    total = hashlib.sha256()
    with Path(file).open("rb") as stream:
        stream.seek(begin)
        left = end - begin
        while left > 0 and (data := stream.read(min(left, _CHUNK_BYTES))):
            total.update(data)
            left -= len(data)
    return total.hexdigest()


def stamp_of(file: str) -> tuple[int, int]:
    """Size in bytes and time of change in ns."""
    about = os.stat(file)
    return about.st_size, about.st_mtime_ns


def content_name(digests: Sequence[str]) -> str:
    """The name of a file's content: SHA-256 over the digests of its parts."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def parts_of(size: int) -> list[tuple[int, int]]:
    """The parts of a file of `size` bytes; at least one."""
    return list(pairwise([*range(0, max(1, size), PART_BYTES), size]))


def join_parts(parts: Sequence[Part], *, had_bom: bool) -> LineIndex:
    """The index of a whole file from its parts in order."""
    first = np.cumsum([1, *(part.lines for part in parts)])[:-1].tolist()
    placed = list(zip(first, parts, strict=True))
    return LineIndex(
        np.concatenate([part.start for part in parts]),
        np.concatenate([part.size for part in parts]),
        np.concatenate([part.line + np.int32(before) for before, part in placed]),
        np.concatenate([part.content for part in parts]),
        sum(part.blank_lines for part in parts),
        had_bom,
        tuple(
            Fault(before + fault.line, fault.what, fault.within, fault.remedy)
            for before, part in placed
            for fault in part.faults
        ),
    )


def index_list(reader: RowReader, *, read: Read, keep_faults: bool, contents: bool) -> LineIndex:
    """The index of a file that is one JSON value, which cannot be read in parts. Raises DataError for a
    file that is broken, and for a bad row unless `keep_faults`."""
    rows = _Rows(read, keep_faults=keep_faults, contents=contents)
    for row in reader:
        if not rows.add(row.origin, row.start, row.num_bytes, lambda row=row: row):
            raise rows.faults[0].error(reader.file)
    return LineIndex(*rows.columns(), 0, reader.had_bom, tuple(rows.faults))
