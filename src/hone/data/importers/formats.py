"""Which reader a file's ending asks for. It knows no folder and no hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hone.data.importers.columnar import ARROW, PARQUET, arrow_rows, parquet_rows
from hone.data.importers.delimited import DELIMITERS, delimited_rows
from hone.data.importers.findings import Findings
from hone.data.importers.raw_file import RawFile
from hone.data.reader import RowReader
from hone.data.strict import JsonObject

JSON: Final = frozenset({".json", ".jsonl", ".ndjson"})
TABLES: Final = frozenset(DELIMITERS) | PARQUET | ARROW
KNOWN: Final = JSON | TABLES


def raw_rows(file: RawFile, findings: Findings) -> Iterator[JsonObject]:
    """The rows of one file by its ending; anything unknown is read as JSONL. Raises what its reader raises."""
    if file.suffix in PARQUET:
        yield from parquet_rows(file, findings)
    elif file.suffix in ARROW:
        yield from arrow_rows(file, findings)
    else:
        with file.open_bytes() as stream:
            if file.suffix in DELIMITERS:
                yield from delimited_rows(stream, file.name, DELIMITERS[file.suffix], findings)
                return
            reader = RowReader(file.path or file.name, name=file.name, stream=stream)
            yield from (row.value for row in reader)
            findings.add("blank-lines", reader.blank_lines)
            findings.add("byte-order-mark", int(reader.had_bom))
