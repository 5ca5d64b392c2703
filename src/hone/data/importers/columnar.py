"""Parquet and Arrow files to rows, in batches. It knows how such files end, not what their columns mean."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final

from hone.data.importers.arrow_values import ArrowRows, damaged
from hone.data.importers.findings import Findings
from hone.data.importers.packages import load_pyarrow
from hone.data.importers.raw_file import RawFile
from hone.data.strict import JsonObject
from hone.errors import DataError

PARQUET: Final = frozenset({".parquet", ".pq"})
ARROW: Final = frozenset({".arrow", ".feather", ".ipc", ".arrows"})

_BATCH_BYTES: Final = 8 * 2**20  # decoded, by the file's own account
_BATCH_ROWS: Final = 1024
_END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_STREAM: Final = b"\xff\xff\xff\xff"


def parquet_rows(file: RawFile, findings: Findings) -> Iterator[JsonObject]:
    """The rows of a Parquet file; memory is bounded by a batch and by the file's own pages.

    Raises DataError for a file that is cut off, damaged or no Parquet, and for columns and values that
    rows of text cannot hold; EnvironmentFault where pyarrow is absent.
    """
    arrow = load_pyarrow(f"{file.name}: a Parquet file")
    with file.open_bytes() as stream:
        head, tail = _ends(stream, 4)
        if head in (b"PARE", b"PAR1") and tail == b"PARE":
            raise DataError("the file is encrypted", where=file.name, remedy="decrypt it first")
        _check_ends(file, head, tail, b"PAR1", "Parquet")
        with _damage(file.name):
            table: Any = arrow.parquet.ParquetFile(
                stream, buffer_size=2**20, pre_buffer=False, page_checksum_verification=True
            )
            values = ArrowRows(arrow, table.schema_arrow, file.name, findings)
        batches: Any = table.iter_batches(batch_size=_batch_rows(table.metadata), use_threads=False)
        yield from _rows(batches, values, file.name)


def arrow_rows(file: RawFile, findings: Findings) -> Iterator[JsonObject]:
    """The rows of an Arrow IPC file, an IPC stream or a Feather file (version 2).

    Memory is bounded by a batch, and where the file is compressed, by its own record batches. Raises as
    `parquet_rows` does.
    """
    arrow = load_pyarrow(f"{file.name}: an Arrow file")
    with file.open_bytes() as stream:
        head, tail = _ends(stream, 8)
        if head.startswith(b"FEA1"):
            raise DataError(
                "the file is Feather version 1",
                where=file.name,
                remedy="write it again as version 2, or as Parquet",
            )
        is_stream = head.startswith(_STREAM)
        if is_stream and tail != _END_OF_STREAM:
            raise _cut_off(file, "an Arrow stream without its end")
        if not is_stream:
            _check_ends(file, head[:6], tail[-6:], b"ARROW1", "Arrow")
        # A file here is mapped into memory, one elsewhere is read through its stream.
        source: Any = stream if file.path is None else arrow.memory_map(str(file.path))
        with _damage(file.name):
            opened: Any = (arrow.ipc.open_stream if is_stream else arrow.ipc.open_file)(source)
            values = ArrowRows(arrow, opened.schema, file.name, findings)
        yield from _rows(_slices(opened, is_stream=is_stream), values, file.name)


def _rows(batches: Iterator[Any], values: ArrowRows, name: str) -> Iterator[JsonObject]:
    before = 0
    while True:
        with _damage(f"{name}, after row {before:,}"):
            batch = next(batches, None)
        if batch is None:
            return
        yield from values.rows(batch, before)
        before += batch.num_rows


def _slices(opened: Any, *, is_stream: bool) -> Iterator[Any]:
    """The record batches, the long ones in parts."""
    numbers = range(opened.num_record_batches) if not is_stream else ()
    batches: Any = opened if is_stream else (opened.get_batch(number) for number in numbers)
    for batch in batches:
        batch.validate(full=True)  # a damaged offset would be followed anywhere
        size = max(1, batch.nbytes // max(1, batch.num_rows))
        step = max(1, min(_BATCH_ROWS, _BATCH_BYTES // size))
        for start in range(0, batch.num_rows, step):
            yield batch.slice(start, step)


def _batch_rows(metadata: Any) -> int:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    sizes = [group.total_byte_size // max(1, group.num_rows) for group in groups]
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, *sizes, 1)))


def _ends(stream: BinaryIO, count: int) -> tuple[bytes, bytes]:
    """The first and the last `count` bytes; the stream stands at its beginning again."""
    head = stream.read(count)
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - count))
    tail = stream.read(count)
    stream.seek(0)
    return head, tail


def _check_ends(file: RawFile, head: bytes, tail: bytes, magic: bytes, kind: str) -> None:
    if not head:
        raise DataError("the file is empty", where=file.name, remedy="write or fetch it again")
    if head != magic:
        raise DataError(
            f"the content is not {kind}, whatever the name says: it begins with {head!r}",
            where=file.name,
            remedy="give the file the ending of what it is, such as .jsonl, .csv or .parquet",
        )
    if tail != magic:
        raise _cut_off(file, f"{kind} without its end")


def _cut_off(file: RawFile, what: str) -> DataError:
    return DataError(
        f"the file is cut off: {what}", where=file.name, remedy="write or fetch it again"
    )


@contextmanager
def _damage(where: str) -> Generator[None]:
    """Arrow's own exceptions derive from ValueError, OSError and others, as the fault may be."""
    try:
        yield
    except DataError:
        raise
    except (ValueError, OSError, NotImplementedError, KeyError, IndexError, TypeError) as fault:
        raise damaged(fault, where) from fault
