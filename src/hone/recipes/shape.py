"""What the first row of a run is: the shape that the others must have. It renders nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.config.sections import DataSection
from hone.data.formats import RowFormat
from hone.data.reader import RowReader
from hone.errors import DataError
from hone.recipes.rows import found_rows


def first_row(section: DataSection) -> tuple[str, Mapping[str, Any], str]:
    """The shape of the first row of `data.path`, the row itself, and where it stands.

    Raises DataError for a row of no known shape or where there are none, and what finding the rows raises.
    """
    file = found_rows(section, section.path, _say_nothing)
    form = RowFormat("auto", section.columns, section.tags)
    for row in RowReader(file.path, name=file.name):
        form.read(row)
        return form.shape, row.value, str(row.origin)
    raise DataError("no rows", where=file.name, remedy="name a file with rows in it")


def _say_nothing(event: str, about: dict[str, Any]) -> None:
    """The same is said when the rows are read."""
    del event, about
