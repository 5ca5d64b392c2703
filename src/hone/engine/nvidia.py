"""What nvidia-smi says of the cards here and of who holds their memory. No torch, and no GPU needed to ask.

It reads the tool's CSV output; a machine without the tool has no cards, and that is an answer.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

_SECONDS: Final = 20.0
_CARD_FIELDS: Final = (
    "index", "uuid", "name", "memory.total", "memory.used", "memory.free", "utilization.gpu",
    "driver_version",
)  # fmt: skip
_HOLDER_FIELDS: Final = ("gpu_uuid", "pid", "process_name", "used_memory")


@dataclass(frozen=True)
class Holder:
    """A process that holds memory of a card."""

    pid: int
    name: str
    used_mib: int | None
    """None where the driver does not say (in a container, on Windows)."""


@dataclass(frozen=True)
class CardHere:
    """One card of this machine, now."""

    index: int
    name: str
    total_mib: int
    used_mib: int
    free_mib: int
    busy: int | None
    """Percent of the last second in which something ran on it."""
    driver: str
    holders: tuple[Holder, ...]


@dataclass(frozen=True)
class Answer:
    """The cards, or why there is no list of them."""

    cards: tuple[CardHere, ...]
    trouble: str | None
    """What went wrong; None where the tool answered, or where there is no tool."""
    has_tool: bool


def ask() -> Answer:
    """Ask nvidia-smi; it never raises."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Answer((), None, has_tool=False)
    cards, trouble = _query(tool, "gpu", _CARD_FIELDS)
    if trouble is not None:
        return Answer((), trouble, has_tool=True)
    holders, _ = _query(tool, "compute-apps", _HOLDER_FIELDS)
    try:
        return Answer(read_answer(cards, holders), None, has_tool=True)
    except ValueError as error:
        return Answer((), f"its answer is not understood: {error}", has_tool=True)


def read_answer(cards: str, holders: str) -> tuple[CardHere, ...]:
    """The cards in the CSV text of both queries, without heading and units. Raises ValueError."""
    held: dict[str, list[Holder]] = {}
    for row in _rows(holders, _HOLDER_FIELDS):
        holder = Holder(int(row["pid"]), row["process_name"], _number(row["used_memory"]))
        held.setdefault(row["gpu_uuid"], []).append(holder)
    found: list[CardHere] = []
    for row in _rows(cards, _CARD_FIELDS):
        total, used = _number(row["memory.total"]), _number(row["memory.used"])
        free = _number(row["memory.free"])
        if total is None:
            raise ValueError(f"no memory size for card {row['index']}")
        found.append(
            CardHere(
                index=int(row["index"]),
                name=row["name"],
                total_mib=total,
                used_mib=used or 0,
                free_mib=total - (used or 0) if free is None else free,
                busy=_number(row["utilization.gpu"]),
                driver=row["driver_version"],
                holders=tuple(held.get(row["uuid"], ())),
            )
        )
    return tuple(found)


def _query(tool: str, what: str, fields: tuple[str, ...]) -> tuple[str, str | None]:
    command = [tool, f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - the tool that stands on the user's own path, with words of ours
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"nvidia-smi did not answer within {_SECONDS:.0f} s"
    except OSError as error:
        return "", f"nvidia-smi cannot be run: {error.strerror or error}"
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        return "", said[0] if said else f"nvidia-smi ended with code {done.returncode}"
    return done.stdout, None


def _rows(text: str, fields: tuple[str, ...]) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for cells in csv.reader(text.splitlines(), skipinitialspace=True):
        if not cells:
            continue
        if len(cells) != len(fields):
            raise ValueError(f"{len(cells)} values for {len(fields)} fields")
        rows.append(dict(zip(fields, (cell.strip() for cell in cells), strict=True)))
    return rows


def _number(text: str) -> int | None:
    """None for `[N/A]`, `[Not Supported]` and the like."""
    try:
        return int(float(text))
    except ValueError:
        return None
