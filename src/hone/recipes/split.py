"""`split`: the lines of a file laid into train, val and test, byte for byte. It knows no shape and prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

from hone.data.changes import ChangeLedger, ChangeReport, Fate
from hone.data.outbox import Outbox, RowSink
from hone.data.parts import Assignment, RowKey, assign, row_key
from hone.data.raw_rows import RawRow, RawRows
from hone.errors import ConfigError, DataError
from hone.recipes.change import Places, parsed, raw_rows


def split(
    places: Places, shares: Mapping[str, float], *, group_by: str | None = None, seed: int = 0
) -> ChangeReport:
    """Write `train`, `val` and `test` into the folder `places.out`, and return what became of each row.

    `shares` is the share of each part; rows are copied as they stand, in their order. See `assign` for where
    a row goes. Rows that are no JSON are dropped; a row without the column `group_by` is a group of its own.

    Raises ConfigError for places that must not be written, DataError for a file that cannot be read or has
    too few rows, DiskError.
    """
    rows = raw_rows(places.source)
    ledger = ChangeLedger(str(places.source))
    report = ChangeReport("split", [ledger])
    found = [_key(raw, fate, group_by=group_by) for raw, fate in rows.fates(ledger)]
    keys = [key for key in found if key is not None]
    report.check("a row is a JSON object, one per line")
    if group_by is not None and not any(key.group for key in keys):
        raise ConfigError(
            f"--group-by: no row has a column {group_by!r}",
            where=str(places.source),
            remedy="name a column of the rows",
        )
    assignment = assign(keys, shares, seed=seed)
    if assignment.moved:
        report.notices.append(moved_notice(assignment))
    parts = iter(assignment.parts)
    part_of = [None if key is None else next(parts) for key in found]
    again = raw_rows(places.source)
    with Outbox(inputs=[places.source], force=places.force) as outbox:
        suffix = ".json" if places.source.suffix == ".json" else ".jsonl"
        sinks = {part: outbox.rows(places.out / f"{part}{suffix}") for part in shares}
        _copy(again, part_of, sinks)
        if again.sha256 != rows.sha256:
            raise DataError(
                "the file changed while it was read",
                where=str(places.source),
                remedy="let the program that writes it finish, and start again",
            )
        report.written = {str(sink.path): sink.count for sink in sinks.values()}
        places.refuse_strays({sink.path for sink in sinks.values()})
        places.finish(report, outbox)
    return report


def moved_notice(assignment: Assignment) -> str:
    """What a user is told of rows that lie elsewhere than their hash says."""
    return f"moved so that no part is empty: {assignment.moved:,} of {len(assignment.parts):,} rows"


def _key(raw: RawRow, fate: Fate, *, group_by: str | None) -> RowKey | None:
    row = parsed(raw, fate)
    if row is None:
        return None
    group = None if group_by is None else row.get(group_by)
    if group_by is not None and group is None:
        fate.note(f"no value in column {group_by!r}: a group of its own")
    fate.keep()
    return row_key(row, group)


def _copy(rows: RawRows, part_of: list[str | None], sinks: Mapping[str, RowSink]) -> None:
    """Rows to their parts. A file that grew meanwhile is read to its end, so that its hash tells."""
    for raw, part in zip_longest(rows, part_of):
        if raw is not None and part is not None:
            sinks[part].add(raw.data)
