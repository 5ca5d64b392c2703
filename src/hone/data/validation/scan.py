"""The lines of a part of a file, judged. It knows bytes and lines; what is wrong with a row is the judge's matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from hone.data.lines import first_line
from hone.data.reader import MAX_ROW_BYTES, is_blank
from hone.data.validation.finding import Finding
from hone.data.validation.judge import Judge
from hone.data.validation.keys import keep_keys

_CHUNK_BYTES: Final = 2**18


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
        for lines, is_too_large in _batches(stream, begin, end):
            if is_too_large:
                seen.lines += 1
                _judge(lines[0], judge, seen, keep, is_too_large=True)
            else:
                _judge_many(lines, judge, seen, keep)
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


def _judge_many(lines: list[bytes], judge: Judge, seen: Scanned, keep: int | None) -> None:
    """Judge lines, most of which are plainly good as a rule: then one look at all of them shows that no key of
    theirs stands twice."""
    keys = [judge.plain_keys(data) for data in lines]
    total = sum(keys)
    plain = lines if all(keys) else [data for data, found in zip(lines, keys, strict=True) if found]
    are_good = keep_keys(b"\n".join(plain), total)
    if are_good and len(plain) == len(lines):
        seen.lines += len(lines)
        seen.rows += len(lines)
        return
    for data, found in zip(lines, keys, strict=True):
        seen.lines += 1
        if found and are_good:
            seen.rows += 1
        else:
            _judge(data, judge, seen, keep)


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


def _batches(stream: BinaryIO, begin: int, end: int) -> Iterator[tuple[list[bytes], bool]]:
    """Lines that begin in [begin, end) without their line feeds, many at once; one alone where it is too large."""
    at = first_line(stream, begin)
    held: list[bytes] = []  # the beginning of a line, in pieces
    num_held = 0
    while at < end and (chunk := stream.read(min(_CHUNK_BYTES, end - at))):
        at += len(chunk)
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and held:
            lines[0] = b"".join([*held, lines[0]])
            held, num_held = [], 0
            if len(lines[0]) > MAX_ROW_BYTES:
                yield [b""], True
                del lines[0]
        if lines:
            yield lines, False
        if rest:
            held.append(rest)
            num_held += len(rest)
        if num_held > MAX_ROW_BYTES:
            at += _pass_over(stream)
            held, num_held = [], 0
            yield [b""], True
    if held:  # the last line goes on behind the part, or ends with the file
        line = b"".join([*held, stream.readline(MAX_ROW_BYTES + 2 - num_held)])
        if len(line.removesuffix(b"\n")) > MAX_ROW_BYTES:
            yield [b""], True
        else:
            yield [line.removesuffix(b"\n")], False


def _pass_over(stream: BinaryIO) -> int:
    """Read to the end of a line, holding little of it; how many bytes that were."""
    passed = 0
    while piece := stream.readline(_CHUNK_BYTES):
        passed += len(piece)
        if piece.endswith(b"\n"):
            break
    return passed
