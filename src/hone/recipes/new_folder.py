"""A folder of results that comes to be whole, or not at all; nothing that stands there is overwritten. It knows no model."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Final

from hone.errors import ConfigError, DiskError, HoneError

_WRITING: Final = ".writing-"
_SPARE: Final = 1.02
"""Room asked for beside the bytes of the weights themselves: headers, tokenizer, card."""


def refuse_taken(path: Path, *, remedy: str = "name another folder, or move what is there") -> None:
    """Raise ConfigError where something stands at `path` already; an empty folder does not count."""
    if not os.path.lexists(path):
        return
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        return
    raise ConfigError(
        "something stands there already, and nothing is overwritten", where=str(path), remedy=remedy
    )


def refuse_full_disk(path: Path, needed_bytes: int) -> None:
    """Raise DiskError where the file system of `path` has no room for `needed_bytes` of weights."""
    folder = path.absolute()
    while not folder.is_dir():
        folder = folder.parent
    needed = int(needed_bytes * _SPARE)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskError(
            f"the disk has no room: {needed:,} bytes needed, {free:,} bytes free",
            where=str(folder),
            remedy="free some space, or name a folder on another disk",
        )


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Generator[Path]:
    """Yield an empty folder beside `path`, which takes that name when the block ends well.

    Whatever ends the block otherwise, Ctrl-C too, leaves nothing. With `replace` what stands at `path` gives way
    at the end. Raises ConfigError where something stands there, DiskError for a write that failed inside.
    """
    if not replace:
        refuse_taken(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f"{_WRITING}{path.name}-", dir=path.parent))
        try:
            beside.chmod(0o755)
            yield beside
            _settle(beside, path, replace=replace)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except HoneError:
        raise  # some of ours are errors of the system as well
    except OSError as error:
        raise DiskError(
            f"cannot write: {error.strerror or error}",
            where=str(error.filename or path),
            remedy="free some space, or choose another folder",
        ) from error


def _settle(beside: Path, path: Path, *, replace: bool) -> None:
    for file in beside.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    if replace:
        shutil.rmtree(path, ignore_errors=True)
    else:
        refuse_taken(path)  # it may have come to be meanwhile
    beside.rename(path)
