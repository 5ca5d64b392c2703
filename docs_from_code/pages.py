"""The pages of the reference by file name, and whether those on the disk say the same."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from docs_from_code.commands import commands_page
from docs_from_code.configuration import configuration_page
from docs_from_code.errors import errors_page
from docs_from_code.events import events_page
from docs_from_code.foreign import foreign_page
from docs_from_code.source import ROOT

FOLDER = ROOT / "docs" / "reference"


@functools.cache
def pages() -> Mapping[str, str]:
    """Every page that the code writes, by its file's name."""
    return {
        "commands.md": commands_page(),
        "configuration.md": configuration_page(),
        "errors.md": errors_page(),
        "events.md": events_page(),
        "other-systems.md": foreign_page(),
    }


def write(folder: Path = FOLDER) -> list[str]:
    """Write the pages that differ; their names."""
    stale = outdated(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        if name in stale:
            (folder / name).write_text(text, encoding="utf-8")
    return stale


def outdated(folder: Path = FOLDER) -> list[str]:
    """The names of the pages that are missing, or say something else than the code."""
    return [
        name
        for name, text in pages().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]
