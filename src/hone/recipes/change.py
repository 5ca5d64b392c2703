"""What every command that changes rows shares: where it reads and writes, and how its ledger lands. It knows no rule of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.data.changes import ChangeReport, Fate
from hone.data.importers.formats import TABLES
from hone.data.importers.row_file import RowFile, find_rows
from hone.data.outbox import Outbox
from hone.data.parts import PARTS
from hone.data.raw_rows import RawRow, RawRows
from hone.data.strict import JsonObject
from hone.errors import ConfigError, DataError
from hone.recipes.cache import cache_folder

NOT_JSON = "not a row of JSON"


@dataclass(frozen=True)
class Places:
    """What a command reads and writes. `ledger` is where the ledger goes; unset: beside `out`."""

    source: Path
    out: Path
    ledger: Path | None = None
    force: bool = False

    def refuse_strays(self, written: set[Path]) -> None:
        """Raise ConfigError where a part lies in the folder `out` that is not written now: old rows would be read with new ones."""
        for part in PARTS:
            for ending in (".jsonl", ".json"):
                stray = self.out / f"{part}{ending}"
                if stray.exists() and stray not in written:
                    raise ConfigError(
                        "a part of other rows lies there, which is not replaced",
                        where=str(stray),
                        remedy="remove it, or name another folder with --out",
                    )

    def finish(self, report: ChangeReport, outbox: Outbox) -> None:
        """Put the report into the outbox, so that it comes to be together with the rows, or not at all."""
        path = self.ledger or self.out.with_name(f"{self.out.name}.ledger.json")
        report.ledger_file = str(path)
        outbox.put_json(path, report.to_json())


def raw_rows(path: Path) -> RawRows:
    """The rows of a file as bytes; those of a table (CSV, TSV, Parquet, Arrow) as they are imported, a line each.

    Raises DataError, and EnvironmentFault where what reads tables is not installed.
    """
    if path.suffix not in TABLES:
        return RawRows(path)
    file = imported(path)
    return RawRows(file.path, name=file.name)


def imported(table: Path) -> RowFile:
    """The rows of a table as JSONL, a line each. Raises what `raw_rows` does."""
    return find_rows(str(table), cache_dir=cache_folder() / "imports", say=_silent)


def _silent(event: str, told: dict[str, Any]) -> None:
    """What an import says of a table is said of its rows anyway."""
    del event, told


def parsed(raw: RawRow, fate: Fate) -> JsonObject | None:
    """The row's object; None where it was dropped for not being one."""
    try:
        return raw.parse().value
    except DataError as fault:
        fate.drop(NOT_JSON, f"{fault.what} ({fault.where})")
        return None
