"""A multipart form as it comes: small fields in memory, one file straight to disk. It knows no meaning of a field.

Nothing is kept in memory but fields, of which number and size are bounded, and one chunk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Protocol

from anyio import to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from hone.serving.refusal import Refusal

_CHUNK_BYTES: Final = 512 * 2**10
_MOST_FIELDS: Final = 16
_MOST_FIELD_BYTES: Final = 8192
_MOST_HEADER_BYTES: Final = 4096
_MOST_NAME: Final = 255


class Sink(Protocol):
    """Where a file's bytes go."""

    def write(self, data: bytes | memoryview) -> None:
        """Take more."""
        ...


class Form:
    """A form with one file in it, fed in chunks."""

    def __init__(self, content_type: str, file_field: str, sink: Sink) -> None:
        """Raises Refusal where the type names no multipart form."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary or len(boundary) > 70:
            raise Refusal(
                400, "a multipart/form-data body with a boundary is wanted", param=file_field
            )
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._file_field = file_field
        self._sink = sink
        self._in_file = False
        self._field: str | None = None
        self._value = bytearray()
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._parts = 0
        self._is_whole = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_header_field": lambda data, start, end: self._head(0, data, start, end),
                "on_header_value": lambda data, start, end: self._head(1, data, start, end),
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_end,
                "on_end": self._whole,
            },
        )

    def feed(self, data: bytes) -> None:
        """Take more of the body. Raises Refusal where it is no form."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Refusal(400, f"the form cannot be read: {error}") from error

    def close(self) -> None:
        """The body is over. Raises Refusal where the form is not."""
        if not self._is_whole:
            raise Refusal(400, "the form ends before its last boundary")
        if self.filename is None:
            raise Refusal(
                400, f"the form has no file in its field {self._file_field!r}", param=self._file_field
            )  # fmt: skip

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_FIELDS:
            raise Refusal(400, f"the form has more than {_MOST_FIELDS} fields")
        self._headers = {}
        self._header_bytes = 0
        self._value = bytearray()
        self._in_file = False

    def _head(self, which: int, data: bytes, start: int, end: int) -> None:
        self._header_bytes += end - start
        if self._header_bytes > _MOST_HEADER_BYTES:
            raise Refusal(400, f"a field's headers have more than {_MOST_HEADER_BYTES:,} bytes")
        self._header[which].extend(data[start:end])

    def _header_end(self) -> None:
        self._headers[bytes(self._header[0]).lower()] = bytes(self._header[1])
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        if name == self._file_field:
            if filename is None:
                raise Refusal(400, f"{name} is a file: give it with a file name", param=name)
            if self.filename is not None:
                raise Refusal(
                    400, f"the form has two files in {name}; send one at a time", param=name
                )
            self.filename = shown_name(filename.decode("utf-8", "replace"))
            self._in_file = True
        elif filename is not None:
            raise Refusal(
                400, f"a file stands in {name[:80]!r}, where none belongs", param=name[:80]
            )
        elif name in self.fields:
            raise Refusal(400, f"the form has the field {name[:80]!r} twice", param=name[:80])
        self._field = name

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._sink.write(memoryview(data)[start:end])
            return
        self._value.extend(data[start:end])
        if len(self._value) > _MOST_FIELD_BYTES:
            raise Refusal(
                400, f"the field {self._field!r} has more than {_MOST_FIELD_BYTES:,} bytes", param=self._field
            )  # fmt: skip

    def _end(self) -> None:
        if not self._in_file and self._field is not None:
            try:
                self.fields[self._field] = self._value.decode()
            except UnicodeDecodeError as error:
                raise Refusal(
                    400, f"the field {self._field!r} is no UTF-8", param=self._field
                ) from error

    def _whole(self) -> None:
        self._is_whole = True


def shown_name(name: str) -> str:
    """A file's name as it is shown again: its last part, without what a terminal would obey. It is never a path."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in last if letter.isprintable())
    return kept[:_MOST_NAME] or "file"


async def read_form(stream: AsyncIterator[bytes], form: Form) -> None:
    """Feed a form, a large chunk at a time, in a thread: the others' requests go on meanwhile."""
    waiting = bytearray()
    async for chunk in stream:
        waiting += chunk
        if len(waiting) >= _CHUNK_BYTES:
            await to_thread.run_sync(form.feed, bytes(waiting))
            waiting.clear()
    if waiting:
        await to_thread.run_sync(form.feed, bytes(waiting))
    form.close()
