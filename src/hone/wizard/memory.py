"""What the wizard remembers from one time to the next: the project. Nothing depends on it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Final, cast

from hone.errors import HoneError
from hone.recipes.cache import cache_folder
from hone.wizard.answers import Answers, Place
from hone.wizard.reading import folder_name
from hone.wizard.written import write_whole

_NAME: Final = "wizard.json"


def here() -> Place:
    """Where the wizard was called, and what it did last."""
    return Place(Path.cwd(), dict(os.environ), last_project())


def last_project() -> str | None:
    """The project of the last script; None where there was none, or where that cannot be read."""
    try:
        told: Any = json.loads(_file().read_bytes())
        project = cast("dict[str, Any]", told)["project"]
        return str(folder_name(project, Answers()).value)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, HoneError):
        return None


def remember(project: str) -> None:
    """Keep the project for next time; where that is not possible, it is asked next time."""
    with contextlib.suppress(OSError, RuntimeError, HoneError):  # RuntimeError: no home folder
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({"project": project}).encode() + b"\n", replace=True)


def _file() -> Path:
    return cache_folder() / _NAME
