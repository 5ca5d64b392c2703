"""What became of every row: kept, dropped and why, cut, and what was noticed. It knows no rows' content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

LINES_KEPT: Final = 5
_COUNTS: Final = (
    "read", "kept", "examples", "tokens", "trained_tokens", "waiting", "blank_lines",
    "lost_tokens", "lost_trained_tokens",
)  # fmt: skip


@dataclass
class Tally:
    """How often something happened, and the first lines on which it did; none where it concerns the file."""

    count: int = 0
    lines: list[int] = field(default_factory=list[int])

    def add(self, line: int) -> None:
        """Count one more row."""
        self.count += 1
        if len(self.lines) < LINES_KEPT:
            self.lines.append(line)

    def merge(self, other: Tally) -> None:
        """Count what another one counted; the first lines of both are kept."""
        self.count += other.count
        self.lines = sorted([*self.lines, *other.lines])[:LINES_KEPT]


@dataclass
class Ledger:
    """Counts of one file's way to Examples. `read` = `kept` + everything `dropped` + `waiting`, always."""

    file: str = ""
    shape: str = ""
    read: int = 0
    kept: int = 0
    examples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    waiting: int = 0
    """Rows that are read and not prepared yet."""
    blank_lines: int = 0
    lost_tokens: int = 0
    """Tokens that the length limit took: of rows that it shortened, and of those that it dropped whole."""
    lost_trained_tokens: int = 0
    """Those of them that would have been trained."""
    dropped: dict[str, Tally] = field(default_factory=dict[str, Tally])
    cut: Tally = field(default_factory=Tally)
    """Rows that the length limit shortened, by whatever policy."""
    notices: dict[str, Tally] = field(default_factory=dict[str, Tally])

    def drop(self, reason: str, line: int) -> None:
        """A row that is not trained on."""
        self.dropped.setdefault(reason, Tally()).add(line)

    def notice(self, code: str, line: int | None = None) -> None:
        """Something a user should hear of that changes no count; without a line it concerns the file."""
        if line is None:
            self.notices[code] = Tally(1)
        else:
            self.notices.setdefault(code, Tally()).add(line)

    def add(self, other: Ledger) -> None:
        """Take in the counts of other rows of the same file."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.shape = self.shape or other.shape
        self.cut.merge(other.cut)
        for ours, theirs in ((self.dropped, other.dropped), (self.notices, other.notices)):
            for name, tally in theirs.items():
                ours.setdefault(name, Tally()).merge(tally)

    def names(self, tally: Tally) -> list[str]:
        """The first rows of a tally as `file:line`."""
        return [f"{self.file}:{line}" for line in tally.lines]

    @property
    def num_dropped(self) -> int:
        """Rows dropped, for whatever reason."""
        return sum(tally.count for tally in self.dropped.values())

    def sentence(self) -> str:
        """Such as `read 200 = kept 198 + dropped 2 (too long: 2)`, and what the length limit took."""
        reasons = ", ".join(f"{reason}: {tally.count}" for reason, tally in self.dropped.items())
        text = f"read {self.read} = kept {self.kept} + dropped {self.num_dropped}"
        text += f" ({reasons})" if reasons else ""
        text += f" + waiting {self.waiting}" if self.waiting else ""
        return text + self._lost()

    def _lost(self) -> str:
        if not self.lost_tokens:
            return ""
        rows = self.cut.count
        shortened = f"shortened {rows:,} row{'' if rows == 1 else 's'} and " if rows else ""
        return (
            f"; the length limit {shortened}took {self.lost_tokens:,} tokens, "
            f"{self.lost_trained_tokens:,} of them trained"
        )

    def to_json(self) -> dict[str, Any]:
        """The ledger as plain JSON."""

        def plain(tally: Tally) -> dict[str, Any]:
            return {"count": tally.count, "rows": self.names(tally)}

        return {
            "file": self.file,
            "shape": self.shape,
            "read": self.read,
            "kept": self.kept,
            "waiting": self.waiting,
            "examples": self.examples,
            "tokens": self.tokens,
            "trained_tokens": self.trained_tokens,
            "blank_lines": self.blank_lines,
            "lost_tokens": self.lost_tokens,
            "lost_trained_tokens": self.lost_trained_tokens,
            "dropped": {reason: plain(tally) for reason, tally in self.dropped.items()},
            "cut": plain(self.cut),
            "notices": {code: plain(tally) for code, tally in self.notices.items()},
            "sentence": self.sentence(),
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Ledger:
        """The ledger that `to_json` wrote. Raises KeyError or TypeError for anything else."""

        def tally(one: dict[str, Any]) -> Tally:
            return Tally(int(one["count"]), [int(row.rpartition(":")[2]) for row in one["rows"]])

        return cls(
            **{
                key: told[key]
                for key in ("file", "shape", *_COUNTS)
            },
            dropped={name: tally(one) for name, one in told["dropped"].items()},
            cut=tally(told["cut"]),
            notices={name: tally(one) for name, one in told["notices"].items()},
        )  # fmt: skip
