"""What an import noticed: counted, with the first row, and said in sentences. It knows no file format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_TOLD: Final = {
    "blank-lines": "{count} blank lines were skipped",
    "byte-order-mark": "the byte order mark at the start was removed ({count} files)",
    "null-fields": "{count} null fields inside lists were left out: Arrow writes them where a row has no such field",
    "max-rows": "only the first {count} rows were taken, as data.max_rows says; there are more",
}


@dataclass
class _Finding:
    count: int = 0
    rows: int = 0
    first: int = 0


@dataclass
class Findings:
    """Everything that one import noticed and changed."""

    _found: dict[str, _Finding] = field(default_factory=dict[str, _Finding])

    def add(self, code: str, count: int = 1, *, row: int | None = None) -> None:
        """Something happened `count` times, in the 1-based `row` where it is about one."""
        if not count:
            return
        finding = self._found.setdefault(code, _Finding())
        finding.count += count
        if row is not None:
            finding.rows += 1
            finding.first = finding.first or row

    def count(self, code: str) -> int:
        """How often it happened."""
        return self._found[code].count if code in self._found else 0

    def to_json(self) -> dict[str, list[int]]:
        """Code to count, rows and first row, as plain JSON."""
        return {code: [one.count, one.rows, one.first] for code, one in self._found.items()}

    @classmethod
    def from_json(cls, told: dict[str, list[int]]) -> Findings:
        """What `to_json` wrote. Raises TypeError or ValueError for anything else."""
        return cls({code: _Finding(*map(int, numbers)) for code, numbers in told.items()})

    def notices(self, name: str) -> list[tuple[str, str]]:
        """A code and a sentence for each thing noticed; `name` is what the user calls the rows."""
        told: list[tuple[str, str]] = []
        for code, finding in self._found.items():
            text = f"{name}: {_TOLD[code].format(count=f'{finding.count:,}')}"
            if finding.rows:
                rows = f"{finding.rows:,} row{'' if finding.rows == 1 else 's'}"
                text += f" ({rows}, first {name}:{finding.first})"
            told.append((code, text))
        return told
