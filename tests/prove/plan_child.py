"""One `hone` command in a process of its own, and the most memory that it held; its last line on stderr says it."""

from __future__ import annotations

import sys
from pathlib import Path

from hone.cli.main import run


def high_water_bytes() -> int:
    """The most memory of this process, counted from its own beginning: getrusage counts its parent's too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


if __name__ == "__main__":
    code = run(sys.argv[1:])
    print(f"high water {high_water_bytes()}", file=sys.stderr, flush=True)
    sys.exit(code)
