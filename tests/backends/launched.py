"""`hone train` as a user starts it, with several ranks, and what can be seen of it from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from hone.runs.events import Event, read_events

CODE = "import sys\nfrom hone.cli.main import main\nsys.exit(main())"
PATIENCE_SECONDS = 600  # on a machine that does much else


def command(place: Path, output: str, *more: str, nproc: int = 2) -> list[str]:
    mixed = any(word.startswith("data.sources=") for word in more)
    words = [
        "train", *([] if mixed else [str(place / "rows.jsonl")]), "--model", str(place / "model"),
        "--output", str(place / output), "--nproc", str(nproc), "--batch-size", "6",
        "train.precision=fp32", "compute.micro_batch_tokens=60", "compute.threads=1", *more,
    ]  # fmt: skip
    return [sys.executable, "-c", CODE, *words]


def environment(place: Path) -> dict[str, str]:
    extra = {"HONE_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    return {name: value for name, value in {**os.environ, **extra}.items() if name != "CI"}


class Launched:
    """One command, running."""

    def __init__(self, place: Path, output: str, *more: str, nproc: int = 2) -> None:
        self.folder = place / output
        self.process = subprocess.Popen(
            command(place, output, *more, nproc=nproc),
            env=environment(place),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._seen: dict[int, int] = {}

    def events(self, name: str) -> list[Event]:
        return [e for e in read_events(self.folder / "events.jsonl") if e.name == name]

    def reach(self, step: int) -> None:
        """Return when the run has said so many steps; ranks that were seen are remembered."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            if any(event["step"] >= step for event in self.events("step")):
                self.ranks()
                return
            time.sleep(0.05)
        out, err = self.process.communicate()
        raise AssertionError(f"step {step} was not reached:\n{out}\n{err}")

    def ranks(self) -> list[int]:
        """The processes of the ranks, in their order."""
        found = sorted(children(self.process.pid))
        self._seen.update({pid: pid for pid in [*found, *(c for p in found for c in children(p))]})
        return found

    def finish(self) -> tuple[int, str]:
        """The exit code and what stderr said; nothing that was seen is alive any more."""
        _, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert not self.left(), "no orphans"
        return self.process.returncode, err

    def left(self) -> list[int]:
        """Processes of the run that are still there."""
        end = time.monotonic() + 5
        while any(map(is_alive, self._seen)) and time.monotonic() < end:
            time.sleep(0.05)
        return [pid for pid in self._seen if is_alive(pid)]


def children(parent: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        fields = stat_of(int(entry.name)) if entry.name.isdigit() else None
        if fields is not None and int(fields[1]) == parent:
            found.append(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    fields = stat_of(pid)
    return fields is not None and fields[0] not in ("Z", "X")


def stat_of(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
