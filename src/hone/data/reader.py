"""Bytes to rows, strictly: JSONL, or a JSON list of rows. It knows where a row stands, not what it means.

Other kinds of files are turned into JSONL first (`hone.data.importers`); here they are refused by their first bytes.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from hone.data.example import Origin
from hone.data.strict import JsonObject, parse_row
from hone.errors import DataError

MAX_ROW_BYTES: Final = 64 * 2**20
_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"

_MAGIC: Final = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"SQLite format 3": "SQLite",
    b"%PDF": "PDF",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_RENAME: Final = {
    "Parquet": "give it a name that ends in .parquet: it is imported then",
    "Arrow": "give it a name that ends in .arrow: it is imported then",
}
_WRAPPER: Final = re.compile(rb'\{[ \t\r\n]*"data"[ \t\r\n]*:[ \t\r\n]*\[')
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object, where it starts, and how many bytes it takes in the file.

    A list of two (a question and its answer) stands here as `{"pair": [question, answer]}`.
    """

    value: JsonObject
    origin: Origin
    num_bytes: int = 0
    start: int = 0


class RowReader:
    """Rows of one file, one at a time; memory is bounded by the longest row.

    A file is JSONL, a JSON list of objects, or, where its name ends in .json, `{"data": [...]}` around
    such a list. `name` is what messages call it, unless it is the path. An open `stream` of bytes is
    read instead of the path, from where it stands, and is left open. After the last row `blank_lines`, `had_bom` and `sha256` tell what else was seen. Every fault
    raises DataError with file, line and remedy.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        stream: BinaryIO | None = None,
        chunk_bytes: int = 2**20,
    ) -> None:
        self.file = str(path) if name is None else name
        self._path = Path(path)
        self._stream = stream
        self._chunk_bytes = chunk_bytes
        self.blank_lines = 0
        self.had_bom = False
        self._is_lines = True
        self._digest = hashlib.sha256()
        if stream is None:
            check_regular(self._path, self.file)

    @property
    def is_lines(self) -> bool:
        """Whether each row stands on a line of its own; known once reading has begun."""
        return self._is_lines

    @property
    def sha256(self) -> str:
        """Hash (hex) of the bytes read so far."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Row]:
        try:
            if self._stream is not None:
                yield from self._rows(self._stream)
                return
            with self._path.open("rb") as stream:
                yield from self._rows(stream)
        except OSError as fault:
            raise DataError(
                f"cannot read the file: {fault.strerror or fault}",
                where=self.file,
                remedy="check that it exists and that you may read it",
            ) from fault

    def _rows(self, stream: BinaryIO) -> Iterator[Row]:
        place = stream.tell()
        head = stream.read(16)
        stream.seek(place)
        check_text(head, self.file)
        if head.startswith(_BOM):
            self.had_bom = True
            self._digest.update(stream.read(len(_BOM)))
        found = False
        opening = self._list_opening(stream)
        self._is_lines = opening is None
        rows = self._line_rows(stream) if opening is None else self._list_rows(stream, opening)
        for row in rows:
            found = True
            yield row
        if not found:
            raise DataError(
                "the file holds no rows"
                + (
                    f", only {self.blank_lines} blank lines"
                    if self.blank_lines
                    else ": it is empty"
                ),
                where=self.file,
                remedy="one JSON object per line is wanted",
            )

    def _list_opening(self, stream: BinaryIO) -> bytes | None:
        """What stands before the first row of a list, its bracket included; None where there is no list.

        A line may be a list too, of a question and an answer; such a line begins with text.
        """
        place = stream.tell()
        head = b""
        while len(head) < 2 and (more := stream.read(self._chunk_bytes)):
            head = (head + more).lstrip(_SPACE)
            if head.startswith(b"["):
                head = b"[" + head[1:].lstrip(_SPACE)
        stream.seek(place)
        if head.startswith(b"["):
            return None if head[1:2] == b'"' else b"["
        wrapped = _WRAPPER.match(head) if self._path.suffix == ".json" else None
        return wrapped and wrapped[0]

    def _line_rows(self, stream: BinaryIO) -> Iterator[Row]:
        place = stream.tell() if self._stream is None else 0
        for line, start, data in lines_in(stream, self.file, place, seen=self._digest.update):
            if is_blank(data):
                self.blank_lines += 1
                continue
            origin = Origin(self.file, line + 1)
            if line == 0 and self._one_object(data):
                self._is_lines = False
                whole = self._rest(stream, data)
                yield Row(parse_row(whole, origin), origin, stream.tell() - start, start)
            else:
                yield Row(parse_row(data, origin), origin, len(data), start)

    def _one_object(self, first: bytes) -> bool:
        """A .json file whose first line is only the beginning of an object is one object over many lines."""
        return self._path.suffix == ".json" and first.strip() == b"{"

    def _rest(self, stream: BinaryIO, first: bytes) -> bytes:
        rest = stream.read(MAX_ROW_BYTES + 1)
        self._digest.update(rest)
        if len(rest) > MAX_ROW_BYTES:
            raise too_large(Origin(self.file, 1))
        return first + b"\n" + rest

    def _list_rows(self, stream: BinaryIO, opening: bytes) -> Iterator[Row]:
        scanner = _ListScanner(
            stream,
            self.file,
            opening=opening,
            seen=self._digest.update,
            chunk_bytes=self._chunk_bytes,
        )
        before = stream.tell() if self._stream is None else 0
        for line, start, data in scanner:
            origin = Origin(self.file, line)
            yield Row(parse_row(data, origin), origin, len(data), before + start)


def lines_in(
    stream: BinaryIO,
    name: str,
    at: int,
    end: int | None = None,
    *,
    seen: Callable[[bytes], object] | None = None,
) -> Iterator[tuple[int, int, bytes]]:
    """(number from 0, first byte, content without its line end) of each line that begins before `end`.

    The stream stands at byte `at`, the beginning of a line. Only LF ends a line, a CR before it is
    dropped. `seen` gets every byte. Raises DataError for a line above `MAX_ROW_BYTES`.
    """
    number = 0
    while (end is None or at < end) and (line := stream.readline(MAX_ROW_BYTES + 1)):
        if seen is not None:
            seen(line)
        if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
            raise too_large(Origin(name, number + 1))
        start = at
        at += len(line)
        yield number, start, line.removesuffix(b"\n").removesuffix(b"\r")
        number += 1


def is_blank(line: bytes) -> bool:
    """Whether a line holds nothing but spaces and tabs."""
    return not line.strip(b" \t")


class _ListScanner:
    """Finds the rows of a JSON list without holding more than one of them."""

    # A string, a bracket or a comma; a lone quote is a string whose end has not been read yet.
    _TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],"]', re.DOTALL)

    def __init__(
        self,
        stream: BinaryIO,
        file: str,
        *,
        opening: bytes,
        seen: Callable[[bytes], None],
        chunk_bytes: int,
    ) -> None:
        self._stream = stream
        self._chunk_bytes = chunk_bytes
        self._file = file
        self._opening = opening
        self._seen = seen
        self._buffer = b""
        self._at = 0
        self._line = 1
        self._passed = 0  # bytes that have left the buffer

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        self._next_byte()
        while len(self._buffer) - self._at < len(self._opening):
            self._more(self._chunk_bytes)
        self._advance(len(self._opening))
        first = True
        while (byte := self._next_byte()) != b"]":
            if not first:
                if byte != b",":
                    raise self._fault("a comma or ']' is wanted between rows", byte)
                self._advance(1)
                byte = self._next_byte()
            if byte not in (b"{", b"["):
                raise self._fault("every element of the list must be an object", byte)
            first = False
            line, stop = self._line, self._object_end()
            start, data = self._passed + self._at, self._buffer[self._at : stop]
            self._advance(stop - self._at)
            yield line, start, data
        self._advance(1)
        if self._opening != b"[":
            if (byte := self._next_byte()) != b"}":
                raise self._fault("nothing may stand beside the list 'data'", byte)
            self._advance(1)
        if tail := self._next_byte():
            raise self._fault("nothing may follow the list", tail)

    def _object_end(self) -> int:
        wanted = self._chunk_bytes
        while True:
            depth = 0
            for match in self._TOKEN.finditer(self._buffer, self._at):
                token = match[0]
                if token in (b"{", b"["):
                    depth += 1
                elif token in (b"}", b"]"):
                    depth -= 1
                    if depth == 0:
                        return match.end()
                elif token == b'"':
                    break
            if len(self._buffer) - self._at > MAX_ROW_BYTES:
                raise too_large(Origin(self._file, self._line))
            if not self._more(wanted):
                raise self._fault("the file ends in the middle of this row", b"")
            wanted *= 2  # each pass scans the row anew, so the passes must be few

    def _next_byte(self) -> bytes:
        """The next byte that is not a space, unread; empty at the end of the file."""
        while True:
            while self._at < len(self._buffer):
                byte = self._buffer[self._at : self._at + 1]
                if byte not in (b" ", b"\t", b"\r", b"\n"):
                    return byte
                self._advance(1)
            if not self._more(self._chunk_bytes):
                return b""

    def _advance(self, count: int) -> None:
        self._line += self._buffer.count(b"\n", self._at, self._at + count)
        self._at += count

    def _more(self, count: int) -> bool:
        data = self._stream.read(count)
        self._seen(data)
        self._buffer = self._buffer[self._at :] + data
        self._passed += self._at
        self._at = 0
        return bool(data)

    def _fault(self, what: str, byte: bytes) -> DataError:
        found = f"found {byte.decode('latin-1')!r}" if byte else "found the end of the file"
        return DataError(
            f"not a JSON list of objects: {what}; {found}",
            where=str(Origin(self._file, self._line)),
            remedy="repair the file, or write one JSON object per line",
        )


def check_regular(path: Path, name: str) -> None:
    """Refuse, with DataError, what is no regular file: absent, a directory, a pipe, a socket, a device.

    Nothing is opened, so nothing waits for a writer. `name` is what the message calls it.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(
            "no such file",
            where=name,
            remedy="check data.path: a file of rows, a folder of them, or a dataset's hub id (org/name)",
        ) from None
    except (OSError, ValueError) as fault:
        raise DataError(
            f"cannot look at the file: {fault}", where=name, remedy="check the path"
        ) from fault
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            raise DataError(
                f"this is {kind}, not a file of rows",
                where=name,
                remedy="name one file: JSONL, JSON, CSV, TSV, Parquet or Arrow",
            )


def check_text(head: bytes, name: str) -> None:
    """Refuse, with DataError, a file whose first bytes say that it is no text. At least 16 are wanted."""
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(
                f"the content is {kind}, whatever the name says",
                where=name,
                remedy=_RENAME.get(kind, "convert or unpack it to JSONL in UTF-8 first"),
            )


def too_large(origin: Origin) -> DataError:
    """The error for a row above `MAX_ROW_BYTES`."""
    return DataError(
        f"the row is larger than {MAX_ROW_BYTES // 2**20} MiB",
        where=str(origin),
        remedy="one JSON object per line is wanted; split the row, or remove what is not text",
    )
