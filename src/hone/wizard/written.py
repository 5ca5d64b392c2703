"""Files that the wizard writes: whole or not at all, and none replaced unasked. It knows no question."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hone.errors import ConfigError, DiskError


def write_whole(path: Path, content: bytes, *, replace: bool) -> None:
    """Write a file, so that whatever happens it is there whole, as it was, or not at all.

    Raises ConfigError where it exists and `replace` is off, DiskError.
    """
    beside: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part", delete=False
        ) as file:
            beside = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(_mode(path))
        if replace:
            os.replace(beside, path)
        else:
            os.link(beside, path)  # unlike a rename it never replaces what came in between
    except FileExistsError:
        raise ConfigError(
            "there is a file of that name", where=str(path), remedy="take another name, or --force"
        ) from None
    except OSError as error:
        raise DiskError(
            f"cannot write: {error.strerror or error}",
            where=str(path),
            remedy="choose another folder, or change its permissions",
        ) from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, else those of any new file."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
