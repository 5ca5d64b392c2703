"""Files written beside their places and given their names together, or not at all. It knows no row and no command."""

from __future__ import annotations

import contextlib
import glob
import json
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from hone.errors import ConfigError, DiskError


class RowSink:
    """Takes rows as bytes, one JSON value each, for a `.jsonl` file or the list of a `.json` file."""

    def __init__(self, stream: BinaryIO, *, is_list: bool, path: Path) -> None:
        self.path = path
        self.count = 0
        self._stream = stream
        self._is_list = is_list

    def add(self, data: bytes) -> None:
        """Append one row, given without a line feed at its end. Raises DiskError."""
        with disk_errors(self.path):
            if self._is_list:
                self._stream.write((b",\n" if self.count else b"[\n") + data)
            else:
                self._stream.write(data + b"\n")
        self.count += 1

    def add_json(self, row: Any) -> None:
        """Append one row; text stays as it is, whatever its script."""
        self.add(as_line(row))

    def close(self) -> None:
        """Write what ends the file, push it to the disk and close it. OSError where that fails."""
        if self._stream.closed:
            return
        if self._is_list:
            self._stream.write(b"\n]\n" if self.count else b"[]\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abandon(self) -> None:
        """Close without caring."""
        with contextlib.suppress(OSError):
            self._stream.close()


class Outbox:
    """Collects the files of one command; they take their names when the block ends well.

    `inputs` are never overwritten, with `force` neither. Any exception, Ctrl-C too, leaves everything as it
    was: no file, no folder, no part. Raises ConfigError for a place that must not be written, DiskError
    where writing fails.
    """

    def __init__(self, *, inputs: Iterable[Path], force: bool) -> None:
        self._inputs = list(inputs)
        self._force = force
        self._parts: dict[Path, Path] = {}
        self._sinks: list[RowSink] = []
        self._made: list[Path] = []

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        done = False
        try:
            if kind is None:
                self._commit()
                done = True
        finally:
            for sink in self._sinks:
                sink.abandon()
            for part in self._parts.values():
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
            if not done:
                for folder in reversed(self._made):
                    with contextlib.suppress(OSError):  # not empty: someone else uses it by now
                        folder.rmdir()

    def rows(self, path: Path) -> RowSink:
        """A new file of rows; `.jsonl` or `.json` says how they stand in it."""
        if path.suffix not in (".jsonl", ".json"):
            raise ConfigError(
                f"rows are written as .jsonl or .json, not as {path.suffix or path.name!r}",
                where=str(path),
                remedy=f"name it {path.with_suffix('.jsonl').name}",
            )
        stream = self._open(path)
        sink = RowSink(stream, is_list=path.suffix == ".json", path=path)
        self._sinks.append(sink)
        return sink

    def put_json(self, path: Path, value: Any) -> None:
        """A new file that holds one JSON value."""
        self.put_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")

    def put_text(self, path: Path, text: str) -> None:
        """A new file that holds this text, in UTF-8."""
        stream = self._open(path)
        with disk_errors(path), stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def check(self, path: Path) -> None:
        """Raise ConfigError unless `path` may be written: no input, and nothing that stands there unasked."""
        for source in self._inputs:
            if path == source or (path.exists() and source.exists() and path.samefile(source)):
                raise ConfigError(
                    "the output is the input itself: nothing is changed in place",
                    where=str(path),
                    remedy="name another output",
                )
        if not os.path.lexists(path):
            return
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise ConfigError(
                "something that is no file stands there", where=str(path), remedy="name a file"
            )
        if not self._force:
            raise ConfigError(
                "the output exists already",
                where=str(path),
                remedy="name another one, or give --force to replace it",
            )

    def _open(self, path: Path) -> BinaryIO:
        assert path not in self._parts, "two outputs of one name"
        self.check(path)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with disk_errors(path):
            self._make_folder(path.parent)
            _sweep(path)
            # Remembered first: an interrupt may come between a file's being and its name's being known.
            self._parts[path] = part
            return part.open("xb")

    def _make_folder(self, folder: Path) -> None:
        missing: list[Path] = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            self._made.append(one)
            one.mkdir()

    def _commit(self) -> None:
        for sink in self._sinks:
            with disk_errors(sink.path):
                sink.close()
        for path in self._parts:
            self.check(path)  # it may have come into being while the rows were written
        replaced: dict[Path, Path | None] = {}
        try:
            for path, part in self._parts.items():
                with disk_errors(path):
                    replaced[path] = _second_name(path)
                    part.rename(path)
        except BaseException:
            for path, before in replaced.items():
                with contextlib.suppress(OSError):
                    if before is not None:
                        before.rename(path)
                        before.unlink(missing_ok=True)  # two names of one file: rename does nothing
                    elif not self._parts[path].exists():
                        path.unlink()
            raise
        for before in replaced.values():
            if before is not None:
                with contextlib.suppress(OSError):
                    before.unlink()
        for folder in {path.parent for path in self._parts}:
            with contextlib.suppress(OSError):  # not every file system can
                _fsync_folder(folder)


def _second_name(path: Path) -> Path | None:
    """Another name for the file that stands at `path`, by which it can come back; None where there is none."""
    if not path.is_file() or path.is_symlink():
        return None
    second = path.with_name(f".{path.name}.{os.getpid()}.before.part")
    try:
        os.link(path, second)
    except (
        OSError
    ):  # a file system without second names: then a failure in the middle is not undone
        return None
    return second


def _sweep(path: Path) -> None:
    """Remove what a killed process left of the same output; one that lives is left alone."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        owner = left.name.removeprefix(f".{path.name}.").partition(".")[0]
        if owner == str(os.getpid()) or (owner.isdigit() and not Path(f"/proc/{owner}").exists()):
            left.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_line(row: Any) -> bytes:
    """A JSON value on one line, every script as it is."""
    return json.dumps(row, ensure_ascii=False).encode()


@contextlib.contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Say OSError in the block as DiskError: what was to be written, and what to do."""
    try:
        yield
    except OSError as fault:
        raise DiskError(
            f"cannot write: {fault.strerror or fault}",
            where=str(path),
            remedy="free some space, or name an output in a folder that you may write",
        ) from fault
