"""A folder for a user's own project: Makefile, configurations, workflows, a place for rows. Nothing of theirs is touched."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from hone.errors import ConfigError, DiskError

_PACKAGE: Final = "hone.project"
_LEFT_OUT: Final = frozenset({"__init__.py", "__pycache__", "saves", "workdir"})
_FOLDERS: Final = ("data/raw",)
_IGNORED: Final = """\
data/processed*/
data/rendered/
outputs/
workflows/saves/
workflows/workdir/
.tensorboard.json
"""


@dataclass(frozen=True)
class Project:
    """What was made."""

    folder: Path
    written: tuple[str, ...]


def new_project(folder: Path) -> Project:
    """Make a project in a folder, which may be there and hold other things.

    Raises ConfigError where a file that would be written is there already, DiskError where one cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file", remedy="name a folder that is new or empty")
    with as_file(files(_PACKAGE)) as source:
        every = [path for path in sorted(source.rglob("*")) if path.is_file()]
        wanted = {path.relative_to(source): path for path in every}
        wanted = {name: path for name, path in wanted.items() if not _LEFT_OUT & set(name.parts)}
        there = [str(name) for name in [*wanted, Path(".gitignore")] if (folder / name).exists()]
        if there:
            raise ConfigError(
                f"{folder} has {there[0]} already{f', and {len(there) - 1} more' if there[1:] else ''}",
                remedy="name another folder, or move what is there: nothing is overwritten",
            )
        try:
            for name, path in wanted.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)
                if name.suffix == ".sh":
                    (folder / name).chmod(0o755)
            for name in _FOLDERS:
                (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / ".gitignore").write_text(_IGNORED)
        except OSError as error:
            raise DiskError(
                f"cannot make the project: {error.strerror}",
                where=str(folder),
                remedy="name a folder that can be written to",
            ) from error
    return Project(folder, (*(str(name) for name in wanted), ".gitignore"))
