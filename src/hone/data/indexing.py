"""Finding the line index of a file: by reading it once, in several processes, or in the cache. It knows no tokens."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hone.config.sections import DataSection
from hone.data.crew import each
from hone.data.lines import (
    LineIndex,
    Part,
    content_name,
    digest,
    index_list,
    join_parts,
    parts_of,
)
from hone.data.reader import RowReader
from hone.data.road import row_format
from hone.data.workshop import Order, Workshop
from hone.errors import DataError


@dataclass(frozen=True)
class Indexed:
    """A file's index, and the name of the content that it is of."""

    index: LineIndex
    content: str


def shape_of(file: str, name: str, section: DataSection) -> tuple[str, bool]:
    """The shape of a file's rows by its first one, and whether its rows stand a line each. Raises DataError."""
    reader = RowReader(file, name=name)
    form = row_format(section)
    for row in reader:
        try:
            form.read(row)
        except DataError:
            if section.bad_rows == "drop":
                continue
            raise
        return form.shape, reader.is_lines
    raise DataError(
        "no row of the file can be used",
        where=name,
        remedy="`hone validate` says what is wrong with each",
    )


def read_index(
    order: Order, shop: Workshop, *, is_lines: bool, workers: int, contents: bool
) -> Indexed:
    """Read the file once: index and check every row. Raises DataError for the first bad row."""
    section = DataSection.model_validate(order.section)
    keep = section.bad_rows == "drop"
    parts = parts_of(order.stamp[0])
    if not is_lines:
        reader = RowReader(order.file, name=order.name)
        form = row_format(section, order.shape)
        index = index_list(reader, read=form.read, keep_faults=keep, contents=contents)
        return Indexed(index, name_content(order.file))
    found = (
        _by_crew(order, parts, workers, contents=contents)
        if workers and len(parts) > 1
        else [shop.scan(*part, contents=contents) for part in parts]
    )
    with Path(order.file).open("rb") as stream:
        had_bom = stream.read(3) == b"\xef\xbb\xbf"
    index = join_parts(found, had_bom=had_bom)
    if index.faults and not keep:
        raise index.faults[0].error(order.name)
    return Indexed(index, content_name([part.digest for part in found]))


def _by_crew(
    order: Order, parts: list[tuple[int, int]], workers: int, *, contents: bool
) -> list[Part]:
    jobs = [{"scan": list(part), "contents": contents} for part in parts]
    return each(jobs, order, workers, lambda answer: Part.from_json(answer["part"]))


def name_content(file: str) -> str:
    """The name of a file's content, by reading all of it. Raises OSError."""
    return content_name([digest(file, *part) for part in parts_of(os.path.getsize(file))])
