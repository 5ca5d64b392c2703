"""Writes the skill that teaches coding assistants to use the wizard. It replaces nothing that a user changed.

Beside a skill lies a list of what was written, so that a newer Hone can tell its own older words from a user's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, cast

from hone.errors import ConfigError, DiskError
from hone.wizard.written import write_whole

NAME: Final = "train-sft"
PLACES: Final = {"claude": ".claude/skills", "agents": ".agents/skills"}
"""Where assistants look for skills, below a project's folder."""
_LIST: Final = ".written-by-hone.json"


@dataclass(frozen=True)
class Placed:
    """A file of a skill, and what became of it: `written`, `updated`, `unchanged` or `replaced`."""

    path: Path
    fate: str


def install(folder: Path, assistants: Sequence[str], *, force: bool) -> list[Placed]:
    """Write the skill for these assistants below `folder`.

    Nothing at all is written where a file was changed by someone and `force` is off. Raises ConfigError, DiskError.
    """
    if not folder.is_dir():
        raise ConfigError("no such folder", where=str(folder), remedy="name the project's folder")
    contents = _contents()
    placed: list[Placed] = []
    for assistant in assistants:
        target = folder / PLACES[assistant] / NAME
        ours = _written_before(target)
        for name, content in contents.items():
            placed.append(Placed(target / name, _fate(target / name, content, ours)))
    changed = [one.path for one in placed if one.fate == "replaced"]
    if changed and not force:
        raise ConfigError(
            "files there are not as Hone wrote them: " + ", ".join(map(str, changed)),
            remedy="keep your words elsewhere and add --force, or leave the skill as it is",
        )
    for one in placed:
        _write(one, contents)
    return placed


def _contents() -> dict[str, bytes]:
    """The files of the skill, by their names."""
    source = files("hone.wizard") / "skills" / NAME
    return {
        one.name: one.read_bytes() for one in sorted(source.iterdir(), key=lambda one: one.name)
    }


def _fate(path: Path, content: bytes, ours: dict[str, str]) -> str:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return "replaced"
    try:
        there = path.read_bytes()
    except FileNotFoundError:
        return "written"
    except OSError as error:
        raise DiskError(f"cannot read: {error.strerror or error}", where=str(path)) from error
    if there == content:
        return "unchanged"
    return "updated" if ours.get(path.name) == _digest(there) else "replaced"


def _write(one: Placed, contents: dict[str, bytes]) -> None:
    target = one.path.parent
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(
            f"cannot make the folder: {error.strerror or error}",
            where=str(target),
            remedy="check its permissions",
        ) from error
    if one.fate != "unchanged":
        write_whole(one.path, contents[one.path.name], replace=one.fate != "written")
    digests = {name: _digest(content) for name, content in contents.items()}
    text = json.dumps({"files": digests}, indent=1, sort_keys=True) + "\n"
    write_whole(target / _LIST, text.encode(), replace=True)


def _written_before(target: Path) -> dict[str, str]:
    try:
        told: Any = json.loads((target / _LIST).read_bytes())
        return dict(cast("dict[str, dict[str, str]]", told)["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
