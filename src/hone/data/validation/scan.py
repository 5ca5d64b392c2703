"""The lines of a part of a file, judged. It knows bytes and lines; what is wrong with a row is the judge's matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import numpy as np

from hone.data.lines import first_line
from hone.data.reader import MAX_ROW_BYTES, is_blank
from hone.data.validation.finding import Finding
from hone.data.validation.judge import Judge
from hone.data.validation.keys import PAD, UInt8, keep_keys

if TYPE_CHECKING:
    import io

_CHUNK_BYTES: Final = 2**18
_LINE_FEED: Final = ord("\n")


@dataclass
class Scanned:
    """What was seen of a part; lines count from its first, which is 1."""

    lines: int = 0
    rows: int = 0
    blank_lines: int = 0
    errors: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    """The first of them, as many as were asked for."""

    def to_json(self) -> dict[str, Any]:
        """For another process."""
        return {
            "lines": self.lines,
            "rows": self.rows,
            "blank_lines": self.blank_lines,
            "errors": self.errors,
            "findings": [one.to_list() for one in self.findings],
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Scanned:
        """What `to_json` gave."""
        findings = [Finding(*one) for one in told["findings"]]
        return cls(told["lines"], told["rows"], told["blank_lines"], told["errors"], findings)


def scan_part(file: str, begin: int, end: int, judge: Judge, keep: int | None) -> Scanned:
    """Judge the rows that begin in bytes [begin, end) of a file of lines.

    `keep` is how many findings are kept, None for all; all are counted. Memory is bounded by the longest row
    that is allowed. Raises OSError, and ConfigError where the settings do not fit the rows.
    """
    seen = Scanned()
    with Path(file).open("rb") as stream:
        for batch in _batches(stream, begin, end):
            if batch is None:
                seen.lines += 1
                _judge(b"", judge, seen, keep, is_too_large=True)
            else:
                _judge_many(batch, judge, seen, keep)
    return seen


def join(parts: Sequence[Scanned], keep: int | None) -> Scanned:
    """The whole of a file from its parts in order, lines counted from the file's first."""
    whole = Scanned()
    for part in parts:
        room = len(part.findings) if keep is None else keep - len(whole.findings)
        whole.findings += [
            Finding(whole.lines + line, *rest)
            for line, *rest in (one.to_list() for one in part.findings[: max(0, room)])
        ]
        whole.lines += part.lines
        whole.rows += part.rows
        whole.blank_lines += part.blank_lines
        whole.errors += part.errors
    return whole


def _judge_many(batch: _Batch, judge: Judge, seen: Scanned, keep: int | None) -> None:
    """Judge lines, most of which are plainly good as a rule: then one look at all of them shows that no key of
    theirs stands twice."""
    keys = [judge.plain_keys(line) for line in batch.lines]
    total = sum(keys)
    if all(keys) and keep_keys(batch.text, total):
        seen.lines += len(keys)
        seen.rows += len(keys)
        return
    found = list(zip(batch.lines, keys, strict=True))
    plain = b"\n".join(line for line, count in found if count)
    are_good = keep_keys(np.frombuffer(PAD + plain, dtype=np.uint8), total)
    for line, count in found:
        seen.lines += 1
        if count and are_good:
            seen.rows += 1
        else:
            _judge(bytes(line), judge, seen, keep)


def _judge(
    data: bytes, judge: Judge, seen: Scanned, keep: int | None, *, is_too_large: bool = False
) -> None:
    """Judge the line that was counted last."""
    data = data.removesuffix(b"\r")
    if is_blank(data) and not is_too_large:
        seen.blank_lines += 1
        return
    seen.rows += 1
    finding = judge.look(data, seen.lines, is_too_large=is_too_large)
    if finding is None:
        return
    seen.errors += 1
    if keep is None or len(seen.findings) < keep:
        seen.findings.append(finding)


@dataclass(frozen=True)
class _Batch:
    """Whole lines without their line feeds, and all of their bytes after a `PAD`. Both are good until the next
    batch is asked for: they stand in one buffer, because copies would cost more than the judging."""

    lines: list[memoryview]
    text: UInt8


def _batches(stream: BinaryIO, begin: int, end: int) -> Iterator[_Batch | None]:
    """The lines that begin in [begin, end), many at once; None for one that is too large."""
    at = first_line(stream, begin)
    window = _Window(_CHUNK_BYTES)
    while at < end:
        got = window.fill(stream, end - at)
        if not got:
            break
        at += got
        yield from window.taken()
        if window.held > MAX_ROW_BYTES:
            at += _pass_over(stream)
            window.held = 0
            yield None
    if window.held:  # the last line goes on behind the part, or ends with the file
        line = window.rest() + stream.readline(MAX_ROW_BYTES + 2 - window.held)
        line = line.removesuffix(b"\n")
        yield None if len(line) > MAX_ROW_BYTES else _alone(line)


class _Window:
    """A buffer over a file: whole lines are taken from it, and what is `held` is the beginning of the next."""

    def __init__(self, size: int) -> None:
        self.held = 0
        self._make(size, b"")

    def fill(self, stream: BinaryIO, most: int) -> int:
        """Read on, at most `most` bytes; how many were read. A line that fills the buffer makes it larger."""
        if self.held == self._size:
            self._make(2 * self._size, self.rest())
        self._end = len(PAD) + self.held
        room = min(self._size - self.held, most)
        got = cast("io.BufferedReader", stream).readinto(self._view[self._end : self._end + room])
        self._end += got
        return got

    def taken(self) -> Iterator[_Batch | None]:
        """The whole lines; afterwards only the beginning of the next is held."""
        begin = len(PAD)
        fresh = begin + self.held
        stops = (np.flatnonzero(self._text[fresh : self._end] == _LINE_FEED) + fresh).tolist()
        if not stops:
            self.held = self._end - begin
            return
        view = self._view
        if stops[0] - begin > MAX_ROW_BYTES:
            yield None
            first = stops.pop(0) + 1
            view[begin : begin + self._end - first] = bytes(view[first : self._end])
            self._end -= first - begin
            stops = [stop - (first - begin) for stop in stops]
        lines: list[memoryview] = []
        at = begin
        for stop in stops:
            lines.append(view[at:stop])
            at = stop + 1
        if lines:
            yield _Batch(lines, self._text[:at])
        rest = bytes(view[at : self._end])
        view[begin : begin + len(rest)] = rest
        self.held = len(rest)

    def rest(self) -> bytes:
        """What is held."""
        return bytes(self._view[len(PAD) : len(PAD) + self.held])

    def _make(self, size: int, held: bytes) -> None:
        self._size = size
        buffer = bytearray(len(PAD) + size)
        buffer[: len(PAD) + len(held)] = PAD + held
        self._view = memoryview(buffer)
        self._text = np.frombuffer(buffer, dtype=np.uint8)
        self._end = len(PAD) + len(held)


def _alone(line: bytes) -> _Batch:
    return _Batch([memoryview(line)], np.frombuffer(PAD + line, dtype=np.uint8))


def _pass_over(stream: BinaryIO) -> int:
    """Read to the end of a line, holding little of it; how many bytes that were."""
    passed = 0
    while piece := stream.readline(_CHUNK_BYTES):
        passed += len(piece)
        if piece.endswith(b"\n"):
            break
    return passed
