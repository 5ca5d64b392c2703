"""Rows written in every format that is imported, and `find_rows` with a cache and ears."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hone.data.importers.row_file import RowFile, find_rows
from hone.data.reader import RowReader

TEXTS = ["2024-01-01", "001", "true", "1e5", "null"]
ROWS = [{"prompt": text, "completion": text[::-1]} for text in TEXTS]


class Finder:
    """`find_rows` with a cache and ears."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.told: list[dict] = []

    def __call__(self, path, **asked) -> RowFile:
        self.told = []
        return find_rows(
            str(path), cache_dir=self.cache, say=lambda event, told: self.told.append(told), **asked
        )

    def rows(self, path, **asked):
        found = self(path, **asked)
        return [row.value for row in RowReader(found.path, name=found.name)]

    @property
    def codes(self) -> list[str]:
        return [told["code"] for told in self.told]

    @property
    def imports(self) -> list[str]:
        return sorted(p.name for p in self.cache.iterdir()) if self.cache.is_dir() else []


def write(path: Path, rows=None) -> Path:
    """Rows in the format that the name asks for."""
    rows = ROWS if rows is None else rows
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        path.write_text("".join(mark.join(line) + "\n" for line in lines))
    else:
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return path
