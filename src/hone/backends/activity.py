"""How much processor and disk a group of processes has used so far, as the system counts it. Linux only."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")
_DISK_BLOCK = 1 << 20  # bytes read or written that count like `_COARSE` ticks
_COARSE = 5  # ticks of 10 ms: less is what a sleeping process uses by waking up


class Activity:
    """The work of one process group."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._in_disk_sleep = 0

    def used(self) -> int:
        """A number that changes while any process of the group works, or waits for a disk.

        In steps of 50 ms of processor or a MiB of reads and writes; what a process used leaves with it.
        """
        work = 0
        for entry in _PROC.iterdir():
            if entry.name.isdigit():
                work += self._work_of(entry)
        return work // _COARSE + self._in_disk_sleep

    def _work_of(self, entry: Path) -> int:
        try:
            fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[2]) != self._group:
                return 0
            self._in_disk_sleep += fields[0] == b"D"
            ticks = sum(int(field) for field in fields[11:15])  # and its ended children's
            words = (entry / "io").read_bytes().split()
            moved = int(words[1]) + int(words[3])  # rchar, wchar
        except (OSError, ValueError, IndexError):
            return 0  # it ended meanwhile
        return ticks + moved // _DISK_BLOCK * _COARSE
