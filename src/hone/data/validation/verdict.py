"""A whole file judged, in this process or in several. It knows parts and processes, not what a row must be."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from hone.config.sections import DataSection
from hone.data.crew import each
from hone.data.formats import RowFormat
from hone.data.importers.row_file import RowFile
from hone.data.lines import PART_BYTES, stamp_of
from hone.data.raw_rows import RawRows
from hone.data.reader import RowReader, check_regular, check_text
from hone.data.validation.finding import Finding
from hone.data.validation.judge import Judge
from hone.data.validation.scan import Scanned, join, scan_part
from hone.data.validation.worker import PROGRAM, JudgeOrder
from hone.errors import DataError

FAST_BYTES: Final = 8 * 2**20
"""Size of a file from which several processes judge it."""


@dataclass
class Verdict:
    """What is wrong with a file. `errors` counts all findings, of which the first are listed."""

    name: str
    shape: str = ""
    rows: int = 0
    blank_lines: int = 0
    errors: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def is_valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors

    def add(self, finding: Finding) -> None:
        """Something is wrong with the file as a whole."""
        self.errors += 1
        self.findings.append(finding)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "valid": self.is_valid,
            "file": self.name,
            "shape": self.shape or None,
            "rows": self.rows,
            "blank_lines": self.blank_lines,
            "num_errors": self.errors,
            "errors": [one.to_json() for one in self.findings],
        }


def judge_file(
    file: RowFile,
    section: DataSection,
    *,
    rules: str,
    workers: int,
    keep: int | None = None,
    part_bytes: int = PART_BYTES,
) -> Verdict:
    """Judge every row of a file; `keep` is how many findings are listed, None for all.

    With `workers` above 0 a file of lines is judged by as many processes, in parts. What is wrong with the file
    itself is a finding too. Raises ConfigError where settings do not fit the rows, EnvironmentFault.
    """
    verdict = Verdict(file.name)
    try:
        _fill(verdict, file, section, rules, workers, keep, part_bytes)
    except DataError as error:
        verdict.add(Finding.of_file(error))
    except OSError as error:
        what = f"cannot read the file: {error.strerror or error}"
        remedy = "check that it exists and that you may read it"
        verdict.add(Finding.of_file(DataError(what, where=file.name, remedy=remedy)))
    return verdict


def settled_shape(path: Path, section: DataSection) -> str:
    """The shape of a file's rows by the first that has a known one; "auto" where none has."""
    if section.format != "auto":
        return section.format
    form = RowFormat("auto", section.columns, section.tags)
    with suppress(DataError):  # what breaks off the file is told when its rows are judged
        for raw in RawRows(path):
            with suppress(DataError):
                form.read(raw.parse())
            if form.shape:
                break
    return form.shape or "auto"


def _fill(
    verdict: Verdict,
    file: RowFile,
    section: DataSection,
    rules: str,
    workers: int,
    keep: int | None,
    part_bytes: int,
) -> None:
    check_regular(file.path, file.name)
    before = stamp_of(str(file.path))
    with file.path.open("rb") as stream:
        check_text(stream.read(16), file.name)
    shape = settled_shape(file.path, section)
    verdict.shape = "" if shape == "auto" else shape
    order = JudgeOrder(str(file.path), shape, section.columns, section.tags, rules, keep)
    if _has_lines(file.path):
        seen = _scanned(order, before[0], workers, part_bytes)
    else:
        seen = _listed(verdict, order)
    verdict.rows, verdict.blank_lines = seen.rows, seen.blank_lines
    verdict.errors += seen.errors
    verdict.findings = [*seen.findings, *verdict.findings]
    if not seen.rows and not verdict.errors:
        blank = f", only {seen.blank_lines} blank lines" if seen.blank_lines else ": it is empty"
        raise DataError(
            f"the file holds no rows{blank}",
            where=file.name,
            remedy="one JSON object per line is wanted",
        )
    if stamp_of(str(file.path)) != before:
        raise DataError(
            "the file changed while it was read",
            where=file.name,
            remedy="let the program that writes it finish, and start again",
        )


def _has_lines(path: Path) -> bool:
    """Whether each row stands on a line of its own."""
    reader = RowReader(path)
    with suppress(DataError):  # told later, with everything else
        next(iter(reader))
    return reader.is_lines


def _scanned(order: JudgeOrder, size: int, workers: int, part_bytes: int) -> Scanned:
    parts = list(pairwise([*range(0, max(1, size), part_bytes), size]))
    if workers and len(parts) > 1:
        found = _by_crew(order, parts, workers)
    else:
        judge = order.judge()
        found = [scan_part(order.file, *part, judge, order.keep) for part in parts]
    return join(found, order.keep)


def _listed(verdict: Verdict, order: JudgeOrder) -> Scanned:
    """The rows of a file that is one JSON value. What breaks off the value is added to the verdict."""
    seen = Scanned()
    judge: Judge = order.judge()
    try:
        for raw in RawRows(order.file):
            seen.rows += 1
            finding = judge.look(raw.data, raw.origin.line, is_too_large=raw.is_too_large)
            if finding is not None:
                seen.errors += 1
                if order.keep is None or len(seen.findings) < order.keep:
                    seen.findings.append(finding)
    except DataError as error:
        verdict.add(Finding.of_file(error))
    return seen


def _by_crew(order: JudgeOrder, parts: list[tuple[int, int]], workers: int) -> list[Scanned]:
    jobs = [{"scan": list(part)} for part in parts]
    return each(jobs, order, workers, Scanned.from_json, PROGRAM)
