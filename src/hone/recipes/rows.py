"""Where a run's rows are, found or imported into the cache. It reads no rows itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hone.config.sections import DataSection, SourceSection
from hone.data.importers.row_file import RowFile, find_rows
from hone.data.mix import rows_per_epoch
from hone.data.prepare import Rows
from hone.errors import ConfigError
from hone.recipes.cache import cache_folder

Say = Callable[[str, dict[str, Any]], None]


def training_rows(section: DataSection, say: Say) -> list[Rows]:
    """The rows that `data.path` or each entry of `data.sources` names, and how they are read. `say` hears a
    notice for each thing that a user should know.

    Raises what `found_rows` raises.
    """
    if section.sources:
        return [_source(section, one, say) for one in section.sources]
    file = found_rows(section, section.path, say)
    return [Rows(file, section)]


def _source(section: DataSection, source: SourceSection, say: Say) -> Rows:
    """One of several sources: its file under its own name, where it has one."""
    own: dict[str, Any] = {
        "path": source.path,
        "sources": [],
        "format": source.format,
        "columns": source.columns,
        "tags": source.tags,
        "split": source.split,
        "subset": source.subset,
        "revision": source.revision,
        "max_rows": source.max_rows or section.max_rows,
    }
    of_source = section.model_copy(update=own)
    file = found_rows(of_source, source.path, say)
    if source.name is not None:
        file = replace(file, name=source.name)
    return Rows(file, of_source)


def found_rows(section: DataSection, path: str, say: Say, prefer: str = "train") -> RowFile:
    """The file behind `path`, found or imported into the cache; split, subset and the rest are the section's.

    Raises what `hone.data.importers.row_file.find_rows` raises.
    """
    return find_rows(
        path,
        split=section.split,
        subset=section.subset,
        revision=section.revision,
        streaming=section.streaming,
        max_rows=section.max_rows,
        cache_dir=cache_folder() / "imports",
        say=say,
        prefer=prefer,
    )


def source_weights(section: DataSection, row_counts: tuple[int, ...]) -> tuple[float, ...] | None:
    """The proportions in which sources are mixed; None where every row is taken once.

    Raises ConfigError where a weight comes to no row at all.
    """
    weights = tuple(one.weight for one in section.sources if one.weight is not None)
    if not weights:
        return None
    for place, count in enumerate(row_counts):
        if count < 1 or rows_per_epoch(row_counts, weights)[place] < 1:
            raise ConfigError(
                f"data.sources[{place}] gives no row to an epoch of {sum(row_counts):,} rows",
                remedy="give it a larger weight, or leave it out",
            )
    return weights


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
