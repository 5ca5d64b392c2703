"""`convert`: the rows of a file written in another shape. It composes reader, shapes and writers, and prints nothing."""

from __future__ import annotations

from typing import Any, cast

from hone.config.sections import DataSection
from hone.data.changes import ChangeLedger, ChangeReport, Fate
from hone.data.conversation import Conversation
from hone.data.formats import SHAPES, RowFormat
from hone.data.outbox import Outbox
from hone.data.raw_rows import RawRow
from hone.data.reader import Row
from hone.data.shape_writers import SHAPE_KEYS, WRITERS, write_row
from hone.errors import ConfigError, DataError, nearest
from hone.recipes.change import Places, parsed, raw_rows

_MISREAD = SHAPE_KEYS | {key for shape in SHAPES.values() for key in shape.keys}
# What the reader of rows changed, in our words; its other remarks concern training, not what is written.
_READ_OTHERWISE = {
    "bare-tool": "a tool without a type was given one",
    "refusal-as-content": "the content is null and the refusal was taken for it",
}


def convert(section: DataSection, places: Places, *, to: str, lossy: bool = False) -> ChangeReport:
    """Write every row of `places.source` in the shape `to`, and return what became of each.

    `section` says how its rows are read. Columns that no shape knows are carried along. A row that the shape
    cannot say is dropped with the reason, or written without that part where `lossy`.

    Raises ConfigError for a shape or place that cannot be meant, DataError for a file that cannot be read or
    where no row is left, DiskError.
    """
    if to not in WRITERS:
        raise ConfigError(f"--to: no shape {to!r} is written", remedy=nearest(to, WRITERS))
    form = RowFormat(section.format, section.columns, section.tags)
    rows = raw_rows(places.source)
    ledger = ChangeLedger(str(places.source))
    report = ChangeReport("convert", [ledger])
    with Outbox(inputs=[places.source], force=places.force) as outbox:
        sink = outbox.rows(places.out)
        for raw, fate in rows.fates(ledger):
            written = _converted(raw, fate, form, section, to=to, lossy=lossy)
            if written is not None:
                ledger.saw(form.shape)
                sink.add_json(written)
        report.check(
            f"--lossy leaves out what {to!r} cannot say; or choose another shape with --to"
        )
        report.written[str(places.out)] = sink.count
        places.finish(report, outbox)
    return report


def _converted(
    raw: RawRow, fate: Fate, form: RowFormat, section: DataSection, *, to: str, lossy: bool
) -> dict[str, Any] | None:
    """The row in its new shape; None where it was dropped, which its fate then knows."""
    value = parsed(raw, fate)
    if value is None:
        return None
    try:
        said = cast("object", form.read(Row(value, raw.origin, len(raw.data))))
        written, losses = write_row(said, to, lossy=lossy, where=str(raw.origin))
    except DataError as fault:
        fate.refuse(fault)
        return None
    kept, lost = _carried(value, SHAPES[form.shape].keys, section)
    if lost and not lossy:
        fate.drop(
            f"the column {lost[0]!r} has the name of a column of some shape, and would be read as one"
        )
        return None
    for what in (*losses, *(f"left out: the column {key!r}" for key in lost)):
        fate.repair(what)
    if isinstance(said, Conversation):
        for remark in said.remarks:
            _tell(remark, fate, value)
    fate.keep()
    return written | kept


def _carried(
    value: dict[str, Any], keys: tuple[str, ...], section: DataSection
) -> tuple[dict[str, Any], list[str]]:
    """Columns beside the conversation: those that go along, and the names of those that would be misread."""
    read = {key for key in keys if key not in section.columns} | set(section.columns.values())
    extra = [key for key in value if key not in read]
    misread = [key for key in extra if key in _MISREAD]
    return {key: value[key] for key in extra if key not in _MISREAD}, misread


def _tell(remark: str, fate: Fate, value: dict[str, Any]) -> None:
    code, _, detail = remark.partition(":")
    if code in _READ_OTHERWISE:
        fate.repair(_READ_OTHERWISE[code])
    elif code == "unknown-key" and detail not in value:
        fate.repair(f"left out: the key {detail.rpartition('/')[2]!r} of a message")
