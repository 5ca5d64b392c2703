"""The bytes of files: written beside, made durable, then there under an id of ours. It knows no names of users."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Final

from hone.errors import DiskError
from hone.service.names import FILE, PART, UPLOAD, is_id
from hone.serving.refusal import Refusal

_PART: Final = ".part"
_ERRORS: Final = ".errors"
_STALE_S: Final = 3600
_LEAST_FREE_BYTES: Final = 64 * 2**20


@contextlib.contextmanager
def _room() -> Generator[None]:
    """What the disk refuses, in our words."""
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"the service could not keep the file: {error.strerror}",
            remedy="ask its operator for room",
        ) from error


class Incoming:
    """A file that is being written; until `keep` it is not there, and after `drop` there is nothing of it."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < _LEAST_FREE_BYTES:
            raise DiskError("the disk of the service is full", remedy="ask its operator for room")
        self.id = path.name
        self._path = path
        self._beside = path.with_name(path.name + _PART)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._stream = os.fdopen(os.open(self._beside, flags, 0o600), "wb")
        self._digest = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._most = most_bytes
        self.bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes. Raises Refusal where they become too many."""
        self.bytes += len(data)
        if self.bytes > self._most:
            raise Refusal(
                413,
                f"the file is larger than the {self._most:,} bytes that it may have",
                param="file",
                code="file_too_large",
            )
        with _room():
            self._stream.write(data)
        self._digest.update(data)
        self._md5.update(data)

    @property
    def sha256(self) -> str:
        """The digest of what was written."""
        return self._digest.hexdigest()

    @property
    def md5(self) -> str:
        """The digest that a client may give with an upload, to see that all of it came."""
        return self._md5.hexdigest()

    def keep(self) -> Path:
        """Make it durable, and there."""
        with _room():
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
        self._beside.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return self._path

    def drop(self) -> None:
        """Leave nothing."""
        with contextlib.suppress(OSError):  # what it still held need not be written
            self._stream.close()
        self._beside.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)


class Vault:
    """The folders `files` and `uploads` below the root. Every path is made of ids, which are checked."""

    def __init__(self, root: Path) -> None:
        self._files = root / "files"
        self._uploads = root / "uploads"

    def path(self, file: str) -> Path:
        """Where a file's bytes lie."""
        assert is_id(file, FILE)
        return self._files / file

    def errors_path(self, file: str) -> Path:
        """Where lies what is wrong with a file, a line of JSON for each."""
        assert is_id(file, FILE)
        return self._files / (file + _ERRORS)

    def incoming(self, file: str, most_bytes: int) -> Incoming:
        """A file to be written."""
        return Incoming(self.path(file), most_bytes)

    def incoming_part(self, upload: str, part: str, most_bytes: int) -> Incoming:
        """A part of an upload to be written."""
        return Incoming(self._part(upload, part), most_bytes)

    def join(self, upload: str, parts: Iterable[str], file: str, most_bytes: int) -> Incoming:
        """A file made of parts, in this order, not kept yet."""
        made = self.incoming(file, most_bytes)
        try:
            for part in parts:
                with self._part(upload, part).open("rb") as stream:
                    while block := stream.read(2**20):
                        made.write(block)
        except BaseException:
            made.drop()
            raise
        return made

    def write_errors(self, file: str, lines: Iterable[str]) -> None:
        """Keep what is wrong with a file: all of it, or nothing."""
        path = self.errors_path(file)
        beside = path.with_name(f"{path.name}.{os.getpid()}{_PART}")
        with _room():
            with beside.open("w", encoding="utf-8") as stream:
                stream.writelines(lines)
            beside.rename(path)

    def remove(self, file: str) -> None:
        """Forget a file's bytes, and what was wrong with them."""
        self.path(file).unlink(missing_ok=True)
        self.errors_path(file).unlink(missing_ok=True)

    def remove_upload(self, upload: str) -> None:
        """Forget the parts of an upload."""
        assert is_id(upload, UPLOAD)
        shutil.rmtree(self._uploads / upload, ignore_errors=True)

    def sweep(self, is_known: Callable[[str], bool]) -> list[str]:
        """Remove what a server that was killed left half done; the names of what went."""
        gone: list[str] = []
        if not self._files.is_dir():
            return gone
        for path in sorted(self._files.iterdir()):
            file = path.name.removesuffix(_PART).removesuffix(_ERRORS)
            is_half = path.name.endswith(_PART)
            is_old = time.time() - path.stat().st_mtime > _STALE_S
            # A worker may be writing a result just now: what is young and whole may soon be known.
            if is_half or (is_old and not (is_id(file, FILE) and is_known(file))):
                path.unlink(missing_ok=True)
                gone.append(path.name)
        return gone

    def _part(self, upload: str, part: str) -> Path:
        assert is_id(upload, UPLOAD)
        assert is_id(part, PART)
        return self._uploads / upload / part
