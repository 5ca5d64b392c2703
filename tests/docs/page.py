"""A page of the documentation as its blocks: what stands in fences, and the remarks above them. It runs nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = DOCS / "reference"
_BLOCK = re.compile(
    r"(?:^<!-- (?P<remark>.+?) -->\n)?"
    r"^```(?P<language>\w+)(?: title=\"(?P<file>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.M | re.S,
)
_REMARKS = re.compile(r"not run: .+|slow|exits with \d+")


@dataclass(frozen=True)
class Block:
    """A fence: its language, its text, its line, the remark above it, and the file that it is (or nothing)."""

    language: str
    text: str
    line: int
    remark: str
    file: str = ""

    @property
    def is_run(self) -> bool:
        """Whether it is a command or a program that can run anywhere."""
        return self.language in ("sh", "python") and not self.remark.startswith("not run")

    @property
    def exit_code(self) -> int:
        """What its last command is to leave with."""
        return int(self.remark.split()[-1]) if self.remark.startswith("exits with") else 0

    def commands(self) -> Iterator[str]:
        """Each command line of a shell block, without remarks and with continued lines joined."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.strip() and not line.strip().startswith("#"):
                yield line.strip()


def pages() -> list[Path]:
    """Every page that a person wrote."""
    return sorted(path for path in DOCS.rglob("*.md") if GENERATED not in path.parents)


def blocks(page: Path) -> list[Block]:
    """The blocks of a page. Raises ValueError for a remark or a fence that means nothing."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        remark = match["remark"] or ""
        if remark and not _REMARKS.fullmatch(remark):
            raise ValueError(f"{page.name}: no such remark: {remark}")
        line = text.count("\n", 0, match.start("text"))
        found.append(Block(match["language"], match["text"], line, remark, match["file"] or ""))
    if len(re.findall(r"^```", text, re.M)) != 2 * len(found):
        raise ValueError(f"{page.name}: a fence that no test sees")
    return found


def words_of(command: str) -> list[str]:
    """The words of a command line, without what follows a `#`."""
    return shlex.split(command, comments=True)
