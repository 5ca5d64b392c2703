"""Bytes to rows, strictly: JSONL, or a JSON list of rows. It knows where a row stands, not what it means."""

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


class RowReader:
    """Rows of one file, one at a time; memory is bounded by the longest row.

    After the last row `blank_lines`, `had_bom` and `sha256` tell what else was seen. Every fault
    raises DataError with file, line and remedy.
    """

    def __init__(self, path: str | Path, *, chunk_bytes: int = 2**20) -> None:
        self.file = str(path)
        self._chunk_bytes = chunk_bytes
        self.blank_lines = 0
        self.had_bom = False
        self._digest = hashlib.sha256()
        _check_kind(Path(path), self.file)

    @property
    def sha256(self) -> str:
        """Hash (hex) of the bytes read so far."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Row]:
        try:
            with Path(self.file).open("rb") as stream:
                yield from self._rows(stream)
        except OSError as fault:
            raise DataError(
                f"cannot read the file: {fault.strerror or fault}",
                where=self.file,
                remedy="check that it exists and that you may read it",
            ) from fault

    def _rows(self, stream: BinaryIO) -> Iterator[Row]:
        head = stream.read(16)
        stream.seek(0)
        _check_magic(head, self.file)
        if head.startswith(_BOM):
            self.had_bom = True
            self._digest.update(stream.read(len(_BOM)))
        found = False
        rows = self._list_rows(stream) if self._is_list(stream) else self._line_rows(stream)
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

    def _is_list(self, stream: BinaryIO) -> bool:
        """Whether the file is one list: it opens one, and what stands first in it is no text.

        A line may be a list too, of a question and an answer; such a line begins with text.
        """
        place = stream.tell()
        opened = is_list = False
        while head := stream.read(self._chunk_bytes):
            if not opened:
                head = head.lstrip(_SPACE)
                opened = is_list = head.startswith(b"[")
                if head and not opened:
                    break
                head = head[1:]
            if head := head.lstrip(_SPACE):
                is_list = not head.startswith(b'"')
                break
        stream.seek(place)
        return is_list

    def _line_rows(self, stream: BinaryIO) -> Iterator[Row]:
        number = 0
        while line := stream.readline(MAX_ROW_BYTES + 1):
            number += 1
            self._digest.update(line)
            origin = Origin(self.file, number)
            if len(line) > MAX_ROW_BYTES and not line.endswith(b"\n"):
                raise _too_large(origin)
            if line.endswith(b"\n"):
                line = line[:-1]
            if line.endswith(b"\r"):
                line = line[:-1]
            if not line.strip(b" \t"):
                self.blank_lines += 1
                continue
            if number == 1 and self._one_object(line):
                line = self._rest(stream, line)
            yield Row(parse_row(line, origin), origin, len(line))

    def _one_object(self, first: bytes) -> bool:
        """A .json file whose first line is only the beginning of an object is one object over many lines."""
        return Path(self.file).suffix == ".json" and first.strip() == b"{"

    def _rest(self, stream: BinaryIO, first: bytes) -> bytes:
        rest = stream.read(MAX_ROW_BYTES + 1)
        self._digest.update(rest)
        if len(rest) > MAX_ROW_BYTES:
            raise _too_large(Origin(self.file, 1))
        return first + b"\n" + rest

    def _list_rows(self, stream: BinaryIO) -> Iterator[Row]:
        scanner = _ListScanner(
            stream, self.file, seen=self._digest.update, chunk_bytes=self._chunk_bytes
        )
        for line, data in scanner:
            origin = Origin(self.file, line)
            yield Row(parse_row(data, origin), origin, len(data))


class _ListScanner:
    """Finds the rows of a JSON list without holding more than one of them."""

    # A string, a bracket or a comma; a lone quote is a string whose end has not been read yet.
    _TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],"]', re.DOTALL)

    def __init__(
        self, stream: BinaryIO, file: str, *, seen: Callable[[bytes], None], chunk_bytes: int
    ) -> None:
        self._stream = stream
        self._chunk_bytes = chunk_bytes
        self._file = file
        self._seen = seen
        self._buffer = b""
        self._at = 0
        self._line = 1

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        self._next_byte()
        self._advance(1)  # the opening bracket
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
            data = self._buffer[self._at : stop]
            self._advance(stop - self._at)
            yield line, data
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
                raise _too_large(Origin(self._file, self._line))
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
        self._at = 0
        return bool(data)

    def _fault(self, what: str, byte: bytes) -> DataError:
        found = f"found {byte.decode('latin-1')!r}" if byte else "found the end of the file"
        return DataError(
            f"not a JSON list of objects: {what}; {found}",
            where=str(Origin(self._file, self._line)),
            remedy="repair the file, or write one JSON object per line",
        )


def _check_kind(path: Path, file: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(
            "no such file", where=file, remedy="check data.path; it names a JSONL or JSON file"
        ) from None
    except (OSError, ValueError) as fault:
        raise DataError(f"cannot look at the file: {fault}", where=file) from fault
    for is_kind, name in _KINDS:
        if is_kind(mode):
            raise DataError(
                f"this is {name}, not a file of rows",
                where=file,
                remedy="name one JSONL or JSON file",
            )


def _check_magic(head: bytes, file: str) -> None:
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(
                f"the content is {name}, whatever the name says",
                where=file,
                remedy="convert or unpack it to JSONL in UTF-8 first",
            )


def _too_large(origin: Origin) -> DataError:
    return DataError(
        f"the row is larger than {MAX_ROW_BYTES // 2**20} MiB",
        where=str(origin),
        remedy="one JSON object per line is wanted; split the row, or remove what is not text",
    )
