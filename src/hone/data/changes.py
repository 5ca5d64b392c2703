"""What became of every row that a command changed: kept, dropped or repaired, why, on which lines. It knows no row's content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hone.errors import DataError


@dataclass
class Lines:
    """The lines (1-based) on which one thing happened, and what was said of the first."""

    lines: list[int] = field(default_factory=list[int])
    example: str = ""

    def add(self, line: int, example: str = "") -> None:
        """One more row."""
        if not self.lines:
            self.example = example
        self.lines.append(line)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, every line."""
        told: dict[str, Any] = {"count": len(self.lines), "lines": self.lines}
        return told | ({"example": self.example} if self.example else {})


class Fate:
    """One row on its way: it ends by `keep` or by `drop`, once.

    What was repaired counts only where the row is kept, so a figure is always about rows that were written.
    """

    def __init__(self, ledger: ChangeLedger, line: int) -> None:
        self._ledger = ledger
        self.line = line
        self._repaired: dict[str, str] = {}
        self._noted: dict[str, str] = {}
        self._is_open = True

    def repair(self, reason: str, example: str = "") -> None:
        """The row was changed; a reason counts once for a row."""
        assert self._is_open
        self._repaired.setdefault(reason, example)

    def note(self, reason: str, example: str = "") -> None:
        """The row is as it was, and a user should hear of it."""
        assert self._is_open
        self._noted.setdefault(reason, example)

    def keep(self) -> None:
        """The row was written."""
        self._close()
        self._ledger.kept += 1
        for told, table in (
            (self._repaired, self._ledger.repaired),
            (self._noted, self._ledger.noted),
        ):
            for reason, example in told.items():
                table.setdefault(reason, Lines()).add(self.line, example)

    def drop(self, reason: str, example: str = "") -> None:
        """The row was left out."""
        self._close()
        self._ledger.dropped.setdefault(reason, Lines()).add(self.line, example)

    def refuse(self, fault: DataError) -> None:
        """The row was left out for what `fault` says; rows that differ only in what was found share a reason."""
        place = "" if fault.where is None else f" ({fault.where})"
        self.drop(fault.what.partition("; found")[0], f"{fault.what}{place}")

    def _close(self) -> None:
        assert self._is_open, "a row is kept or dropped once"
        self._is_open = False


@dataclass
class ChangeLedger:
    """Counts of one file that was read. `read` = `kept` + everything `dropped`, always."""

    file: str
    read: int = 0
    kept: int = 0
    blank_lines: int = 0
    had_bom: bool = False
    shapes: dict[str, int] = field(default_factory=dict[str, int])
    dropped: dict[str, Lines] = field(default_factory=dict[str, Lines])
    repaired: dict[str, Lines] = field(default_factory=dict[str, Lines])
    noted: dict[str, Lines] = field(default_factory=dict[str, Lines])

    def row(self, line: int) -> Fate:
        """One more row was read; what becomes of it is told to its Fate."""
        self.read += 1
        return Fate(self, line)

    def saw(self, shape: str) -> None:
        """One more row of a shape."""
        self.shapes[shape] = self.shapes.get(shape, 0) + 1

    @property
    def num_dropped(self) -> int:
        """Rows left out, for whatever reason."""
        return sum(len(one.lines) for one in self.dropped.values())

    def sentence(self) -> str:
        """Such as `read 200 = kept 198 + dropped 2 (not JSON: 2)`."""
        reasons = ", ".join(f"{reason}: {len(one.lines):,}" for reason, one in self.dropped.items())
        text = f"read {self.read:,} = kept {self.kept:,} + dropped {self.num_dropped:,}"
        return text + (f" ({reasons})" if reasons else "")

    def to_json(self) -> dict[str, Any]:
        """The ledger as plain JSON, with every line number."""
        return {
            "file": self.file,
            "read": self.read,
            "kept": self.kept,
            "blank_lines": self.blank_lines,
            "byte_order_mark": self.had_bom,
            "shapes": self.shapes,
            "dropped": {reason: one.to_json() for reason, one in self.dropped.items()},
            "repaired": {reason: one.to_json() for reason, one in self.repaired.items()},
            "noted": {reason: one.to_json() for reason, one in self.noted.items()},
            "sentence": self.sentence(),
        }


@dataclass
class ChangeReport:
    """What one command did: the ledger of each file that it read, and how many rows each file has that it wrote."""

    command: str
    ledgers: list[ChangeLedger] = field(default_factory=list[ChangeLedger])
    written: dict[str, int] = field(default_factory=dict[str, int])
    notices: list[str] = field(default_factory=list[str])
    ledger_file: str = ""

    @property
    def kept(self) -> int:
        """Rows kept, of all files."""
        return sum(ledger.kept for ledger in self.ledgers)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON."""
        return {
            "command": self.command,
            "read": sum(ledger.read for ledger in self.ledgers),
            "kept": self.kept,
            "dropped": sum(ledger.num_dropped for ledger in self.ledgers),
            "files": [ledger.to_json() for ledger in self.ledgers],
            "written": [{"file": file, "rows": rows} for file, rows in self.written.items()],
            "notices": self.notices,
        }

    def check(self, remedy: str) -> None:
        """Raise DataError where no row at all was kept."""
        if self.kept:
            return
        said = "; ".join(f"{ledger.file}: {ledger.sentence()}" for ledger in self.ledgers)
        places = [
            f"{ledger.file}:{one.lines[0]} {one.example or reason}"
            for ledger in self.ledgers
            for reason, one in ledger.dropped.items()
        ]
        raise DataError(
            f"no row is left, so nothing was written: {said}",
            where="; ".join(places[:3]) or None,
            remedy=remedy,
        )
