"""Where a run's rows are, found or imported into the cache. It reads no rows itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hone.config.sections import DataSection
from hone.data.importers.row_file import RowFile, find_rows
from hone.errors import ConfigError
from hone.recipes.cache import cache_folder

Say = Callable[[str, dict[str, Any]], None]


def training_rows(section: DataSection, say: Say) -> RowFile:
    """The rows that `data.path` names. `say` hears a notice for each thing that a user should know.

    Raises what `hone.data.importers.row_file.find_rows` raises.
    """
    if section.sources:
        raise ConfigError(
            "rows of several sources are not mixed yet", remedy="name one of them: data.path"
        )
    return find_rows(
        section.path,
        split=section.split,
        subset=section.subset,
        revision=section.revision,
        streaming=section.streaming,
        max_rows=section.max_rows,
        cache_dir=cache_folder() / "imports",
        say=say,
    )


def held_out_rows(section: DataSection, say: Say) -> RowFile | None:
    """The rows that `data.validation_path` names; None where it names none.

    Of a dataset with splits it is the split `validation`. Subset, revision and streaming are those of
    `data.path` where both name the same place; `data.max_rows` does not apply.
    """
    path = section.validation_path
    if path is None:
        return None
    is_same = path == section.path
    return find_rows(
        path,
        subset=section.subset if is_same else None,
        revision=section.revision if is_same else None,
        streaming=section.streaming and is_same,
        cache_dir=cache_folder() / "imports",
        say=say,
        prefer="validation",
    )


def source_rows(section: DataSection, say: Say) -> list[RowFile]:
    """The rows of each entry of `data.sources`, in order, under its own name where it has one."""
    found: list[RowFile] = []
    for source in section.sources:
        rows = find_rows(
            source.path,
            split=source.split,
            subset=source.subset,
            revision=source.revision,
            streaming=section.streaming,
            max_rows=section.max_rows,
            cache_dir=cache_folder() / "imports",
            say=say,
        )
        found.append(rows if source.name is None else replace(rows, name=source.name))
    return found
