"""What a rank prints: kept in a file as soon as there is a place for one, and its end in memory for a report."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO, Final

_END_BYTES: Final = 1 << 16
_FILE_BYTES: Final = 1 << 26  # a rank that prints without end must not fill the disk


class Transcript:
    """Text in the order in which it was printed."""

    def __init__(self) -> None:
        self._end = b""
        self._waiting = bytearray()
        self._file: BinaryIO | None = None
        self._written = 0
        self.path: Path | None = None

    def add(self, data: bytes) -> None:
        """More text."""
        self._end = (self._end + data)[-_END_BYTES:]
        if self._file is None:
            self._waiting = (self._waiting + data)[-_END_BYTES:]
        else:
            self._write(data)

    def keep(self, path: Path) -> None:
        """Keep it in a file from now on, what is waiting included; a log is no reason to end a run."""
        if self._file is not None:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            self._file = path.open("ab")
            self.path = path
            self._write(bytes(self._waiting))
        self._waiting.clear()

    def tail(self, lines: int) -> list[str]:
        """The last lines that hold anything."""
        text = self._end.decode(errors="backslashreplace")
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _write(self, data: bytes) -> None:
        if self._file is not None and self._written < _FILE_BYTES:
            with contextlib.suppress(OSError):
                self._file.write(data)
                self._file.flush()
                self._written += len(data)
