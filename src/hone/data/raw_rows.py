"""The rows of a file as the bytes that they are, each with its line; a bad one does not end the file. It knows no shape."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from hone.data.changes import ChangeLedger, Fate
from hone.data.example import Origin
from hone.data.reader import MAX_ROW_BYTES, Row, check_regular, check_text, too_large
from hone.data.strict import parse_row
from hone.errors import DataError

_BOM: Final = b"\xef\xbb\xbf"
# A string, a bracket or a comma; a lone quote opens a string that never ends.
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],"]', re.DOTALL)
# A line that is a list itself, of a question and an answer.
_LINE_OF_TEXTS: Final = re.compile(rb'\[\s*"')
_WRAPPED: Final = re.compile(rb'\s*\{\s*"data"\s*:\s*\[')
_SPACE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row: its bytes exactly as they stand in the file, without the line feed."""

    data: bytes
    origin: Origin
    is_too_large: bool = False

    def parse(self) -> Row:
        """The row, strictly; a list of two stands as `{"pair": [one, two]}`. Raises DataError."""
        if self.is_too_large:
            raise too_large(self.origin)
        return Row(parse_row(self.data, self.origin), self.origin, len(self.data))


class RawRows:
    """Rows of a JSONL file, of a JSON list, or of `{"data": [...]}`, one after the other.

    Lines are streamed; a list is held in memory as bytes. A file that is no file of rows as a whole (a
    folder, an archive, an empty file, a list that is not closed) raises DataError, as `RowReader` does; what
    is wrong with one row is found when that row is parsed. After the last row `blank_lines`, `had_bom` and `sha256` are known.
    """

    def __init__(self, path: str | Path, *, name: str | None = None) -> None:
        """`name`: what messages call the file, unless it is the path."""
        self.file = str(path) if name is None else name
        self._path = Path(path)
        self.blank_lines = 0
        self.had_bom = False
        self._digest = hashlib.sha256()
        check_regular(Path(path), self.file)

    @property
    def sha256(self) -> str:
        """Hash (hex) of the bytes read so far."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[RawRow]:
        try:
            with self._path.open("rb") as stream:
                found = False
                for row in self._rows(stream):
                    found = True
                    yield row
        except OSError as fault:
            raise DataError(
                f"cannot read the file: {fault.strerror or fault}",
                where=self.file,
                remedy="check that it exists and that you may read it",
            ) from fault
        if not found:
            raise DataError(
                "the file holds no rows",
                where=self.file,
                remedy="one JSON object per line is wanted",
            )

    def fates(self, ledger: ChangeLedger) -> Iterator[tuple[RawRow, Fate]]:
        """Each row with its fate in `ledger`, which learns at the end of what else was passed over."""
        for raw in self:
            yield raw, ledger.row(raw.origin.line)
        ledger.blank_lines = self.blank_lines
        ledger.had_bom = self.had_bom

    def _rows(self, stream: BinaryIO) -> Iterator[RawRow]:
        head = stream.read(2**16)
        stream.seek(0)
        check_text(head, self.file)
        self.had_bom = head.startswith(_BOM)
        text = head.removeprefix(_BOM).lstrip(_SPACE)
        is_json = Path(self.file).suffix == ".json"
        many_lines = is_json and text.partition(b"\n")[0].strip() == b"{"
        if text.startswith(b"[") and not _LINE_OF_TEXTS.match(text):
            yield from self._list_rows(self._whole(stream), start=None)
        elif is_json and (found := _WRAPPED.match(head.removeprefix(_BOM))):
            yield from self._list_rows(self._whole(stream), start=found.end())
        elif many_lines:
            yield self._element(self._whole(stream).rstrip(_SPACE), 1)
        else:
            yield from self._line_rows(stream)

    def _whole(self, stream: BinaryIO) -> bytes:
        data = stream.read()
        self._digest.update(data)
        return data.removeprefix(_BOM)

    def _line_rows(self, stream: BinaryIO) -> Iterator[RawRow]:
        number = 0
        while line := stream.readline(MAX_ROW_BYTES + 1):
            number += 1
            self._digest.update(line)
            too_large = len(line) > MAX_ROW_BYTES and not line.endswith(b"\n")
            if too_large:
                self._pass_over(stream)
            data = line.removeprefix(_BOM) if number == 1 else line
            if not data.strip(_SPACE):
                self.blank_lines += 1
                continue
            kept = b"" if too_large else data.removesuffix(b"\n")
            yield RawRow(kept, Origin(self.file, number), too_large)

    def _pass_over(self, stream: BinaryIO) -> None:
        """Read to the end of a line that is too large, holding little of it."""
        while part := stream.readline(2**20):
            self._digest.update(part)
            if part.endswith(b"\n"):
                return

    def _list_rows(self, data: bytes, *, start: int | None) -> Iterator[RawRow]:
        begin = data.index(b"[") + 1 if start is None else start
        line = 1 + data.count(b"\n", 0, begin)
        depth = count = 0
        for match in _TOKEN.finditer(data, begin):
            token = match[0]
            if token in (b"{", b"["):
                depth += 1
            elif token == b'"':
                break
            elif depth and token in (b"}", b"]"):
                depth -= 1
            elif not depth and token in (b",", b"]"):
                element = data[begin : match.start()]
                if element.strip(_SPACE):
                    count += 1
                    first = line + element[: -len(element.lstrip(_SPACE))].count(b"\n")
                    yield self._element(element.strip(_SPACE), first)
                elif token == b"," or count:
                    raise self._fault("a row is missing before a comma or the end", line)
                line += element.count(b"\n")
                begin = match.end()
                if token == b"]":
                    self._check_tail(data[begin:].strip(_SPACE), wrapped=start is not None)
                    return
        raise self._fault("the file ends in the middle of the list", 1 + data.count(b"\n"))

    def _element(self, data: bytes, line: int) -> RawRow:
        origin = Origin(self.file, line)
        too_large = len(data) > MAX_ROW_BYTES
        return RawRow(b"" if too_large else data, origin, too_large)

    def _check_tail(self, tail: bytes, *, wrapped: bool) -> None:
        if tail != (b"}" if wrapped else b""):
            near = tail[:30].decode("utf-8", "replace")
            raise DataError(
                f"nothing may follow the list of rows; found {near!r}",
                where=self.file,
                remedy="write the rows alone: a list, or one object per line",
            )

    def _fault(self, what: str, line: int) -> DataError:
        return DataError(
            f"not a JSON list of rows: {what}",
            where=str(Origin(self.file, line)),
            remedy="repair the file, or write one JSON object per line",
        )
