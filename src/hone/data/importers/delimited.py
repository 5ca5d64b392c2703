"""CSV and TSV to rows, strictly by RFC 4180: every field is text, exactly as written. It guesses nothing.

The first record names the columns. There are no types: `001`, `true`, `2024-01-01`, `null` and the empty field stay
the text that they are. Only a column of a name in `JSON_COLUMNS` may hold a list or an object as JSON text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, NoReturn

from hone.data.example import Origin
from hone.data.importers.findings import Findings
from hone.data.reader import MAX_ROW_BYTES, check_text, too_large
from hone.data.strict import JsonObject, parse_value
from hone.errors import DataError

JSON_COLUMNS: Final = frozenset({"messages", "conversations", "tools"})
DELIMITERS: Final = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_NAMES: Final = {",": "comma", "\t": "tab"}
_BOM: Final = b"\xef\xbb\xbf"
_QUOTED: Final = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')
_PLAIN: Final = {mark: re.compile(rf'[^"{mark}]*') for mark in DELIMITERS.values()}


def delimited_rows(
    stream: BinaryIO, name: str, delimiter: str, findings: Findings
) -> Iterator[JsonObject]:
    """The rows of an open file, one at a time; memory is bounded by the longest.

    Raises DataError with `name` and the line for anything that is not as strict as the file says above:
    quotes that do not match, a row with more or fewer fields than the header has names, bytes that are
    not UTF-8, columns without a name or with the same one.
    """
    records = _Records(stream, name, delimiter, findings)
    names: list[str] | None = None
    for line, fields in records:
        origin = Origin(name, line)
        if names is None:
            names = fields
            _check_header(names, origin, delimiter)
            continue
        if len(fields) != len(names):
            raise DataError(
                f"{len(fields)} fields where the header names {len(names)}",
                where=str(origin),
                remedy=f"a field that holds a {_NAMES[delimiter]} or a line end must stand in double "
                "quotes; an empty field must be there too",
            )
        yield {
            column: _value(column, text, origin) for column, text in zip(names, fields, strict=True)
        }


def _check_header(names: list[str], origin: Origin, delimiter: str) -> None:
    for place, column in enumerate(names, 1):
        if not column.strip():
            raise DataError(
                f"column {place} has no name", where=str(origin), remedy="name it in the first row"
            )
        if column in names[: place - 1]:
            raise DataError(
                f"two columns are named {column!r}", where=str(origin), remedy="rename one of them"
            )
    others = [mark for mark in (",", ";", "\t", "|") if mark != delimiter and mark in names[0]]
    if len(names) == 1 and others:
        raise DataError(
            f"the header is one name, {names[0][:60]!r}, with {others[0]!r} in it",
            where=str(origin),
            remedy=f"fields are parted by a {_NAMES[delimiter]} here, as the file's ending says: "
            "a comma in .csv, a tab in .tsv",
        )


def _value(column: str, text: str, origin: Origin) -> Any:
    if column not in JSON_COLUMNS or not text.startswith(("[", "{")):
        return text
    try:
        return parse_value(text.encode(), origin)
    except DataError as fault:
        raise DataError(
            f"the column {column!r} begins like JSON and is none: {fault.what}",
            where=f"{origin} /{column}",
            remedy="repair the JSON; inside a quoted field each of its quotes is written twice",
        ) from fault


class _Records:
    """Records with the line on which each begins; blank lines between them are counted, not given."""

    def __init__(self, stream: BinaryIO, name: str, delimiter: str, findings: Findings) -> None:
        self._stream = stream
        self._name = name
        self._delimiter = delimiter
        self._findings = findings
        self._line = 0  # of the last line read

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        place = self._stream.tell()
        head = self._stream.read(16)
        check_text(head, self._name)
        has_bom = head.startswith(_BOM)
        self._stream.seek(place + len(_BOM) * has_bom)
        self._findings.add("byte-order-mark", int(has_bom))
        while (text := self._next_line(MAX_ROW_BYTES)) is not None:
            first = self._line
            if '"' in text:
                text = self._whole(text, first)
            text = text.removesuffix("\n").removesuffix("\r")
            if not text:
                self._findings.add("blank-lines")
            elif '"' in text:
                yield first, self._quoted_fields(text, first)
            else:
                self._refuse_lone_return(text, first)
                yield first, text.split(self._delimiter)

    def _next_line(self, most: int, *, first: int = 0) -> str | None:
        """The next line; one longer than `most` bytes makes the record from line `first` on too large."""
        data = self._stream.readline(most + 1)
        if not data:
            return None
        self._line += 1
        if len(data) > most:
            raise too_large(Origin(self._name, first or self._line))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as bad:
            raise DataError(
                f"byte {bad.start} of the line (0x{data[bad.start]:02x}) is not UTF-8: {bad.reason}",
                where=str(Origin(self._name, self._line)),
                remedy="save the file as UTF-8",
            ) from None

    def _whole(self, text: str, first: int) -> str:
        """The record that begins with this line: it goes on while a quote is open."""
        parts, room, is_open = [text], MAX_ROW_BYTES - len(text.encode()), text.count('"') % 2
        while is_open and (more := self._next_line(room, first=first)) is not None:
            parts.append(more)
            room -= len(more.encode())
            is_open ^= more.count('"') % 2
        return "".join(parts)

    def _quoted_fields(self, text: str, first: int) -> list[str]:
        fields: list[str] = []
        at = 0
        while True:
            is_quoted = text.startswith('"', at)
            match = (_QUOTED if is_quoted else _PLAIN[self._delimiter]).match(text, at)
            if match is None:
                self._refuse(first, fields, "a double quote is opened and never closed")
            if is_quoted:
                fields.append(match[0][1:-1].replace('""', '"'))
            else:
                fields.append(match[0])
                self._refuse_lone_return(match[0], first)
            at = match.end()
            if at == len(text):
                return fields
            if text[at] == '"':
                self._refuse(
                    first, fields[:-1], "a double quote stands in a field that has none around it"
                )
            if text[at] != self._delimiter:
                self._refuse(first, fields[:-1], f"{text[at : at + 10]!r} follows a closing quote")
            at += 1

    def _refuse_lone_return(self, text: str, first: int) -> None:
        if "\r" in text:
            raise DataError(
                "a carriage return stands in a field without quotes",
                where=str(Origin(self._name, first)),
                remedy="end lines with LF or CRLF; a field that holds a line end stands in double quotes",
            )

    def _refuse(self, first: int, before: list[str], what: str) -> NoReturn:
        raise DataError(
            f"{what} (field {len(before) + 1} of the row that begins here)",
            where=str(Origin(self._name, first)),
            remedy='put the field in double quotes, and write each quote inside it twice: "a ""b"" c"',
        )
