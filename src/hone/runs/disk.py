"""The file operations that durability rests on. It knows no run and no checkpoint.

They stand in one class so that a test can hand in another one, make the n-th call fail or the process die
there, and look at what is left.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

from hone.errors import DiskError

_BLOCK_BYTES = 1 << 20
_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another output folder; then run the same command again",
    errno.EDQUOT: "your quota is used up: free some space; then run the same command again",
    errno.EFBIG: "a file size limit is in force (see `ulimit -f`); raise it and run the same command again",
    errno.EROFS: "the file system is read-only; choose another output folder",
    errno.EACCES: "you may not write there; choose another output folder or change its permissions",
    errno.EPERM: "you may not write there; choose another output folder or change its permissions",
    errno.EIO: "the disk reports a fault; choose another disk, then run the same command again",
}


class Disk:
    """Real file operations. All raise OSError and none follows a symbolic link in its last part."""

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file; one that stands there is an error."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def fsync(self, path: Path) -> None:
        """Push a file's content to the disk."""
        _fsync(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def fsync_folder(self, path: Path) -> None:
        """Push a folder's names to the disk: without it a rename may be lost with the power."""
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or folder another name, at once or not at all; an existing file is replaced."""
        os.rename(old, new)

    def make_folder(self, path: Path) -> None:
        """Make a new folder."""
        path.mkdir()

    def remove(self, path: Path) -> None:
        """Remove a file, a link (never what it points to) or a whole folder; absence is fine."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def free_bytes(self, path: Path) -> int:
        """Bytes that this user may still write on the file system of `path`."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def replace_file(self, path: Path, data: bytes) -> None:
        """Give `path` a new content, at once or not at all, also when the power fails."""
        beside = path.with_name(f".writing-{path.name}")
        try:
            self.remove(beside)
            self.write(beside, data)
            self.fsync(beside)
            self.rename(beside, path)
            self.fsync_folder(path.parent)
        except OSError:
            _quietly_remove(self, beside)
            raise


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _quietly_remove(disk: Disk, path: Path) -> None:
    """Tidy up after a failure that is already being reported."""
    try:
        disk.remove(path)
    except OSError:
        return  # what is left has a name that nothing reads, and the next opening removes it


def read_regular(path: Path) -> bytes:
    """The content of a regular file; OSError for a symbolic link, a pipe or a folder."""
    with open(_open_regular(path), "rb") as file:
        return file.read()


def sha256_of(path: Path, *, from_disk: bool = False) -> str:
    """SHA-256 of a regular file, as hex. `from_disk` first drops the system's copy of it in memory."""
    digest = hashlib.sha256()
    with open(_open_regular(path), "rb", buffering=0) as file:
        if from_disk:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _open_regular(path: Path) -> int:
    if not path.is_file() or path.is_symlink():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def disk_error(
    doing: str, error: OSError, where: Path, *, free_bytes: int, needed_bytes: int = 0
) -> DiskError:
    """What a user is told of a file operation that failed: the reason, needed and free bytes, what to do."""
    reason = error.strerror or str(error)
    space = f"{needed_bytes:,} bytes needed, " if needed_bytes else ""
    return DiskError(
        f"{doing}: {reason} ({space}{free_bytes:,} bytes free)",
        where=str(where),
        remedy=_REMEDIES.get(
            error.errno or 0, "see the reason above; then run the same command again"
        ),
    )
