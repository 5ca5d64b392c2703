"""What README says that the same job takes elsewhere is what the script counts, and draws."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_and_the_figure_are_what_the_script_makes(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/effort.py", "--svg", str(tmp_path / "effort.svg")]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told in (ROOT / "README.md").read_text(encoding="utf-8")
    drawn = (tmp_path / "effort.svg").read_text()
    kept = (ROOT / "docs/effort.svg").read_text()
    assert [line for line in drawn.splitlines() if "<!--" in line] == [
        line for line in kept.splitlines() if "<!--" in line
    ]
