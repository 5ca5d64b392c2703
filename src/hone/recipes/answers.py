"""The journal of what a teacher answered: a line for each end of a request, on the disk before it counts.

It knows no teacher. A request is a number: prompt times samples, plus the sample. A journal belongs to one set of
prompts and settings, which its first line names. A request that was sent and has no end in it was under way when a
command died: whether it was answered, and charged, nobody knows.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

from hone.data.outbox import disk_errors
from hone.errors import ConfigError, DataError, LockedError
from hone.recipes.spending import Tokens
from hone.recipes.teacher import Answer

_FORMAT: Final = 1


class Outcome(StrEnum):
    """What became of a request that the teacher ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    UNUSABLE = "unusable"
    """A message that cannot be trained on: a tool call without a name, say."""


@dataclass(frozen=True)
class Ended:
    """A request's end: how, the message, the model that wrote it, and what is wrong with it where it is no answer."""

    outcome: Outcome
    message: dict[str, Any]
    model: str
    reason: str | None
    tokens: Tokens


class Journal:
    """What stands in the file at `path`, and what is appended to it. One process at a time holds it."""

    def __init__(self, path: Path, header: Mapping[str, Any], *, fresh: bool) -> None:
        """Open or begin the journal.

        Raises ConfigError where it is of other prompts or settings, DataError where it is damaged, LockedError
        where another process writes it, DiskError.
        """
        self.path = path
        self.ended: dict[int, Ended] = {}
        self.failed: dict[int, str] = {}
        """Requests without an answer, by their last reason; they are asked again."""
        self.unknown: dict[int, Tokens] = {}
        """Requests under way when a command died: the most that they can have taken."""
        self.lost = Tokens(0, 0)
        """Taken, at most, by requests that ended without an answer, those under way included."""
        self.written: str | None = None
        """SHA-256 of the output that was made of this journal."""
        self.moved: Path | None = None
        """Where `fresh` put an earlier one."""
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._locked(fresh=fresh)
            lines = self._whole_lines()
        try:
            for number, line in enumerate(lines[1:], start=2):
                self._replay(line, number)
            self._begin(self._line(lines[0], 1) if lines else None, header)
            if self.moved is not None:
                self._keep_written()
            for (
                number,
                most,
            ) in self.unknown.items():  # counted once, whatever comes of the next try
                self.trouble(number, "under way when a command ended", most, failed=False)
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Let it go."""
        os.close(self._file)

    def asking(self, number: int, most: Tokens) -> None:
        """A request is about to leave that can take so much; not pushed to the disk, since a live kernel keeps it."""
        self._append({"ask": number, "most": [most.prompt, most.completion]}, durable=False)

    def end(self, number: int, ended: Ended) -> None:
        """The teacher has ended a request; it counts after the next `sync`."""
        self.ended[number] = ended
        self.failed.pop(number, None)
        told: dict[str, Any] = {"end": number, "outcome": ended.outcome.value}
        told |= {"message": ended.message, "model": ended.model}
        told |= {"reason": ended.reason} if ended.reason else {}
        self._append(
            {**told, "tokens": [ended.tokens.prompt, ended.tokens.completion]}, durable=False
        )

    def sync(self) -> None:
        """Push what was appended to the disk; other threads may wait here for theirs."""
        with disk_errors(self.path):
            os.fsync(self._file)

    def trouble(self, number: int, reason: str, lost: Tokens, *, failed: bool) -> None:
        """A request has no answer, took at most `lost`, and is not asked again by this command where `failed`."""
        if failed:
            self.failed[number] = reason
        self._lose(lost)
        told = {"trouble": number, "reason": reason, "failed": failed}
        self._append({**told, "tokens": [lost.prompt, lost.completion]})

    def wrote(self, sha256: str) -> None:
        """The output was written, with this digest."""
        self.written = sha256
        self._append({"wrote": sha256})

    def _locked(self, *, fresh: bool) -> int:
        descriptor = _open_locked(self.path)
        if fresh and os.fstat(descriptor).st_size:
            count = 1
            while (aside := self.path.with_name(f"{self.path.name}.{count}")).exists():
                count += 1
            self.path.rename(aside)
            self.moved = aside
            os.close(descriptor)
            descriptor = _open_locked(self.path)
        return descriptor

    def _keep_written(self) -> None:
        """The output of the journal that was moved is ours, too."""
        assert self.moved is not None
        for line in reversed(self.moved.read_bytes().splitlines()):
            if line.startswith(b'{"wrote": '):
                self.wrote(str(self._line(line, 0)["wrote"]))
                return

    def _whole_lines(self) -> list[bytes]:
        """Every line; what follows the last line end was being written when a process died, and is cut off."""
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.ftruncate(self._file, whole)
        return data[:whole].splitlines()

    def _begin(self, found: Mapping[str, Any] | None, header: Mapping[str, Any]) -> None:
        """Name what this journal is of. One in which nothing was taken yet may become another's."""
        wanted = {"journal": _FORMAT, **header}
        if found is not None and found.get("journal") != _FORMAT:
            raise DataError(
                "this is no journal of answers", where=str(self.path), remedy="use --fresh"
            )
        if found is None or found == wanted:
            if found is None:
                self._append(wanted)
        elif self.ended or self.unknown or self.lost.total:
            raise _other(found, wanted, self.path)
        else:
            os.ftruncate(self._file, 0)
            self.failed.clear()
            self._append(wanted)

    def _line(self, line: bytes, number: int) -> dict[str, Any]:
        with contextlib.suppress(ValueError, RecursionError):
            value: object = json.loads(line)
            if isinstance(value, dict):
                return cast("dict[str, Any]", value)
        raise self._damaged(number)

    def _replay(self, line: bytes, at: int) -> None:
        told = self._line(line, at)
        try:
            if "ask" in told:
                self.unknown[int(told["ask"])] = Tokens(*told["most"])
            elif "end" in told:
                number = int(told["end"])
                self.unknown.pop(number, None)
                self.failed.pop(number, None)
                self.ended[number] = Ended(
                    Outcome(told["outcome"]),
                    told["message"],
                    str(told["model"]),
                    told.get("reason"),
                    Tokens(*told["tokens"]),
                )
            elif "trouble" in told:
                number, lost = int(told["trouble"]), Tokens(*told["tokens"])
                self.unknown.pop(number, None)
                self._lose(lost)
                if told["failed"]:
                    self.failed[number] = str(told["reason"])
            else:
                self.written = str(told["wrote"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(at) from error

    def _lose(self, lost: Tokens) -> None:
        self.lost = Tokens(self.lost.prompt + lost.prompt, self.lost.completion + lost.completion)

    def _damaged(self, number: int) -> DataError:
        return DataError(
            "the journal of answers is damaged",
            where=f"{self.path} line {number}",
            remedy="remove that line, or move the journal aside with --fresh (what it holds is then asked, "
            "and charged, again)",
        )

    def _append(self, told: Mapping[str, Any], *, durable: bool = True) -> None:
        line = json.dumps(told).encode("ascii") + b"\n"
        before = os.fstat(self._file).st_size
        with disk_errors(self.path):
            if os.write(self._file, line) != len(line):
                os.ftruncate(self._file, before)  # leave no half line
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                os.fsync(self._file)


def judge(answer: Answer) -> tuple[Outcome, str | None]:
    """What an answer is, and the reason where it is none to learn from."""
    said = str(answer.message.get("content") or "")
    if answer.refusal is not None:
        return Outcome.REFUSED, answer.refusal
    if answer.finish == "content_filter":
        return Outcome.REFUSED, "the teacher's content filter"
    if answer.finish == "length":
        return Outcome.TRUNCATED, "the limit of tokens was reached"
    if not said.strip() and not answer.message.get("tool_calls"):
        return Outcome.EMPTY, "no text and no tool call"
    return Outcome.ANSWERED, None


def _open_locked(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LockedError(
            "another process is asking for the same output",
            where=str(path),
            remedy="wait until it ends, or name another --out",
        ) from error
    return descriptor


def _other(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> ConfigError:
    changed = [
        f"{name}: {found.get(name)!r} -> {wanted.get(name)!r}"
        for name in {**wanted, **found}
        if found.get(name) != wanted.get(name)
    ]
    return ConfigError(
        "this output was begun with other prompts or settings:\n    " + "\n    ".join(changed),
        where=str(path),
        remedy="type the first command again to go on with it, name another --out, or give --fresh to "
        "move the earlier answers aside and ask everything",
    )
