"""Finding the line index of a file: by reading it once, in several processes, or in the cache. It knows no tokens."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.numpy import load, save

from hone.config.sections import DataSection
from hone.data.crew import Crew, Job
from hone.data.lines import (
    Fault,
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
from hone.data.segment import disk_errors
from hone.data.workshop import Order, Workshop
from hone.errors import DataError, HoneError

_INDEX: Final = ".index"
_NAME_DIGITS: Final = 32


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
    jobs = deque(
        {"scan": list(part), "contents": contents, "number": n} for n, part in enumerate(parts)
    )
    found: dict[int, Part] = {}
    faults: list[HoneError] = []

    def next_job() -> Job | None:
        try:
            return None if faults else jobs.popleft()
        except IndexError:
            return None

    def hear(job: Job, answer: dict[str, Any] | HoneError) -> None:
        if isinstance(answer, HoneError):
            faults.append(answer)
            return
        part = Part.from_json(answer["part"])
        found[job["number"]] = part

    crew = Crew(order, min(workers, len(parts)), next_job, hear)
    try:
        crew.join()
    finally:
        crew.close()
    if faults:
        raise faults[0]
    return [found[number] for number in range(len(parts))]


def name_content(file: str) -> str:
    """The name of a file's content, by reading all of it. Raises OSError."""
    return content_name([digest(file, *part) for part in parts_of(os.path.getsize(file))])


def write_index(folder: Path, index: LineIndex) -> None:
    """Keep an index for the next start. Raises DiskError."""
    about = {
        "blank_lines": index.blank_lines,
        "had_bom": index.had_bom,
        "faults": [[f.line, f.what, f.within, f.remedy] for f in index.faults],
    }
    arrays = {
        "start": index.start,
        "size": index.size,
        "line": index.line,
        "content": index.content,
    }
    data = save(arrays, {"about": json.dumps(about)})
    name = hashlib.sha256(data).hexdigest()[:_NAME_DIGITS]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{_INDEX}.{os.getpid()}.part"
        beside.write_bytes(data)
        beside.replace(folder / f"{name}{_INDEX}")


def open_index(folder: Path, *, contents: bool) -> LineIndex | None:
    """The kept index; None where there is none that is whole, or none with the contents that are wanted."""
    for path in sorted(folder.glob(f"*{_INDEX}")):
        index = _opened(path)
        if index is not None and not (contents and index.content.shape != index.start.shape):
            return index
    return None


def _opened(path: Path) -> LineIndex | None:
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:_NAME_DIGITS] != path.name.removesuffix(_INDEX):
            return None
        size = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["about"])
        arrays = load(data)
        faults = tuple(Fault(*fault) for fault in about["faults"])
        return LineIndex(
            arrays["start"],
            arrays["size"],
            arrays["line"],
            arrays["content"],
            about["blank_lines"],
            about["had_bom"],
            faults,
        )
    except (OSError, ValueError, LookupError, TypeError, SafetensorError):
        return None
