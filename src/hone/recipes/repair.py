"""`validate --fix`: the rows that can be repaired, repaired and written beside; the others left out and counted. It prints nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hone.config.sections import DataSection
from hone.data.changes import ChangeLedger, ChangeReport, Fate
from hone.data.example import Origin
from hone.data.formats import RowFormat
from hone.data.outbox import Outbox, as_line
from hone.data.raw_rows import RawRow, RawRows
from hone.data.reader import Row, too_large
from hone.data.strict import parse_row, parse_value
from hone.data.validation.judge import Judge
from hone.data.validation.repair import repaired_bytes, repaired_row
from hone.errors import ConfigError, DataError
from hone.recipes.change import NOT_JSON, Places
from hone.recipes.rows import found_rows
from hone.recipes.validate import Say, check_rules


def repair(
    section: DataSection, places: Places, say: Say, *, rules: str = "full", dedupe: bool = False
) -> ChangeReport:
    """Write the rows of `places.source` that are good, or can be made good, and return what became of each.

    A row in which nothing is to be repaired is written byte for byte. With `dedupe` a row that says exactly what an
    earlier one says is dropped. What is written passes `hone validate` under the same settings and rules.

    Raises ConfigError for a place that must not be written, DataError where no row is left, DiskError.
    """
    check_rules(rules)
    named = str(places.source)
    file = found_rows(section, named, say)
    rows = RawRows(file.path)
    ledger = ChangeLedger(file.name)
    report = ChangeReport("validate", [ledger])
    bench = _Bench(section, rules, dedupe)
    inputs = [Path(named), file.path]
    with Outbox(inputs=inputs, force=places.force) as outbox:
        if places.out.is_dir():
            raise ConfigError(
                "--fix names a file", where=str(places.out), remedy="end it in .jsonl"
            )
        sink = outbox.rows(places.out)
        for raw, fate in rows.fates(ledger):
            data = bench.repaired(raw, fate)
            if data is not None:
                ledger.saw(bench.shape)
                sink.add(data)
        report.check("`hone validate` says what is wrong with each row")
        report.written[str(places.out)] = sink.count
        places.finish(report, outbox)
    return report


@dataclass
class _Bench:
    """Where rows of one file are repaired, one after the other."""

    section: DataSection
    rules: str
    dedupe: bool
    shape: str = ""
    _judge: Judge | None = None
    _seen: dict[int, int] = field(default_factory=dict[int, int])

    def repaired(self, raw: RawRow, fate: Fate) -> bytes | None:
        """The bytes to write; None where the row was dropped, which its fate then knows."""
        origin = raw.origin
        try:
            if raw.is_too_large:
                raise too_large(origin)
            data = repaired_bytes(raw.data, fate.repair)
            value = parse_row(data, origin)
        except DataError as fault:
            fate.drop(NOT_JSON, f"{fault.what} ({fault.where})")
            return None
        if "pair" not in value or data.startswith(b"{"):
            row = repaired_row(value, data, fate.repair)
            if row != value:
                data, value = as_line(row), row
        if b"\n" in data:  # of a JSON list, which may be written over many lines
            data = as_line(parse_value(data, origin))
        try:
            name = self._judged(value, origin)
        except DataError as fault:
            fate.refuse(fault)
            return None
        if self.dedupe:
            first = self._seen.setdefault(name, origin.line)
            if first != origin.line:
                fate.drop("a duplicate of an earlier row", f"the same as line {first}")
                return None
        fate.keep()
        return data

    def _judged(self, value: dict[str, object], origin: Origin) -> int:
        """The name of what a good row says. The first good row settles the shape, as it will where it is read again."""
        if self._judge is None:
            form = RowFormat(self.section.format, self.section.columns, self.section.tags)
            form.read(Row(value, origin))
            judge = Judge(form.shape, self.section.columns, self.section.tags, self.rules)
            name = judge.read(value, origin).content_hash()
            self._judge, self.shape = judge, form.shape
            return name
        return self._judge.read(value, origin).content_hash()
