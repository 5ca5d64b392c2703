"""How often a job's process was started without coming further, kept where the job lies: a worker that dies with it
each time must not begin it for ever. It knows no process."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Final

from hone.runs.disk import Disk

STARTS: Final = "starts.json"


class Starts:
    """The count of one job."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STARTS

    def begin(self, step: int) -> int:
        """Note a start of a run that has come to `step`; how many there were since it came there, this one included."""
        told: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(self._path.read_bytes())
        count = int(told.get("count", 0)) + 1 if told.get("step") == step else 1
        Disk().replace_file(self._path, json.dumps({"step": step, "count": count}).encode() + b"\n")
        return count

    def forget(self) -> None:
        """The process ended as it was asked to: that counts for nothing."""
        self._path.unlink(missing_ok=True)
