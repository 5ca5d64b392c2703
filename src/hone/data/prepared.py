"""One file's rows, prepared: those that are ready lie in segments, others are prepared when their turn comes.

It knows when a row is needed, not what is in it. With a crew, rows are prepared ahead in other processes, in the
order in which training will ask for them; without, in this process, when they are asked for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from hone.data.crew import Crew, Job
from hone.data.example import Example, Origin
from hone.data.hold import Hold
from hone.data.index_file import write_index
from hone.data.ledger import Ledger
from hone.data.lines import LineIndex
from hone.data.segment import SUFFIX, Segment, disk_errors, open_segment, totals
from hone.data.workshop import Place, Workshop
from hone.errors import DataError, EnvironmentFault, HoneError
from hone.pack import Int64

_FIRST_JOBS: Final = (16, 64, 256)  # rows: the first step is to start soon
_JOB_ROWS: Final = 1024
_JOB_BYTES: Final = 8 * 2**20
_RUN_ROWS: Final = 2048  # prepared at once in this process
_HELD_BYTES: Final = 8 * 2**20  # of a smaller file nothing is written before all of it is known
_PREAMBLE_BYTES: Final = (
    1024  # what a template writes of itself: a default system text, a heading of tools
)
_FIRST_PAUSE: Final = 0.02  # seconds between two looks for rows of another process
_LONGEST_PAUSE: Final = 0.5
_DOUBT: Final = 2  # other tokenizers: a row of fewer bytes than the limit divided by this is taken for short enough


class PreparedFile:
    """The rows of one file by their number in its index. Used from one thread.

    `folder`: where segments lie and new ones go; None keeps them in memory. `workers`: how many processes
    prepare ahead, 0 for none; they need a folder.
    """

    def __init__(
        self,
        workshop: Workshop,
        index: LineIndex,
        *,
        key: str,
        folder: Path | None,
        workers: int,
        source_hold: Hold | None = None,
        follows: bool = False,
    ) -> None:
        """`key` names the content of the file and the settings that decide what becomes of it;
        `source_hold` keeps the file itself where it lies in the cache. One that `follows` prepares nothing:
        another process puts the segments into the folder."""
        self.follows = follows and folder is not None
        self._seen: set[Path] = set()
        self.index = index
        self.key = key
        self.name = workshop.order.name
        self._workshop = workshop
        self._source_hold = source_hold
        self._folder = folder
        self._workers = workers if folder is not None else 0
        self._segments: list[Segment] = []
        self._segment_of = np.full(index.num_rows, -1, dtype=np.int32)
        self._place_of = np.zeros(index.num_rows, dtype=np.int32)
        self._ready = 0
        self._changed = threading.Condition()
        self._assigned = np.zeros(index.num_rows, dtype=np.bool_)
        self._urgent: deque[int] = deque()
        self._order: Int64 = np.arange(index.num_rows, dtype=np.int64)
        self._at = 0
        self._jobs = 0
        self._crew: Crew | None = None
        self._waits = False
        self._fault: HoneError | None = None
        self._here = threading.Lock()
        self._unsaved: list[Segment] = []
        self._hold: Hold | None = None
        if folder is not None and folder.is_dir():
            self._keep_hold()
        self._find_segments()

    @property
    def num_ready(self) -> int:
        """Rows that are prepared, those that were dropped included."""
        return self._ready

    @property
    def is_complete(self) -> bool:
        """Whether every row is prepared."""
        return self._ready == self.index.num_rows

    @property
    def pids(self) -> list[int]:
        """The processes that prepare ahead."""
        return [] if self._crew is None else self._crew.pids

    @property
    def works_ahead(self) -> bool:
        """Whether rows are prepared in other processes."""
        return self._workers > 0

    @property
    def ledger(self) -> Ledger:
        """What became of the rows so far."""
        total = Ledger(file=self.name, shape=self._workshop.order.shape)
        for fault in self.index.faults:
            total.read += 1
            total.drop(f"bad row: {fault.what}", fault.line)
        with self._changed:
            told = [segment.about["ledger"] for segment in self._segments]
        for one in told:
            total.add(Ledger.from_json(one))
        total.waiting = self.index.num_rows - self._ready
        total.blank_lines = self.index.blank_lines
        if total.blank_lines:
            total.notice(f"blank-lines:{total.blank_lines:,}")
        if self.index.had_bom:
            total.notice("byte-order-mark")
        return total

    def examples(self, row: int) -> list[Example]:
        """The Examples of a row, none where it is dropped; waits until it is prepared. Raises DataError."""
        if self._segment_of[row] < 0:
            self.ensure([row])
        segment = self._segments[int(self._segment_of[row])]
        return segment.examples(int(self._place_of[row]), self.origin(row))

    def origin(self, row: int) -> Origin:
        """Where a row came from."""
        return Origin(self.name, int(self.index.line[row]))

    def figures(self, rows: Int64) -> Int64:
        """[5] how many of these rows are prepared; their Examples, tokens and trained tokens; and the tokens
        of the longest Example. Segment by segment: a table of all rows would be the largest thing in memory."""
        with self._changed:
            segments = list(self._segments)
        wanted = np.zeros(self.index.num_rows, dtype=np.bool_)
        wanted[rows] = True
        found: Int64 = np.zeros(5, dtype=np.int64)
        for segment in segments:
            own = wanted[segment.row]
            told = segment.totals if own.all() else totals(segment.figures[:, own])
            found[:4] += told[:4]
            found[4] = max(found[4], told[4])
        return found

    def follow(self, order: Int64, *, then_wait: bool = False) -> None:
        """Prepare rows in this order from now on; rows that it does not name follow at the end, or wait for
        another order, so that the processors are free for what comes before the first step."""
        rest = np.ones(self.index.num_rows, dtype=np.bool_)
        rest[order] = False
        left = np.flatnonzero(rest[:0] if then_wait else rest)
        with self._changed:
            self._order = np.concatenate([order, left])
            self._at = 0
            self._waits = then_wait
            self._changed.notify_all()
        if self._crew is None and self._workers and not self.is_complete:
            self._keep_hold()
            self._crew = Crew(self._workshop.order, self._workers, self._next_job, self._hear)

    def ensure(self, rows: Iterable[int]) -> None:
        """Return when these rows are prepared. Raises DataError, EnvironmentFault."""
        wanted = [int(row) for row in rows if self._segment_of[row] < 0]
        if self.follows:
            self._await(wanted)
            return
        if self._crew is None:
            for first in range(0, len(wanted), _RUN_ROWS):
                self._prepare_here(wanted[first : first + _RUN_ROWS])
            return
        with self._changed:
            self._urgent.extend(row for row in wanted if not self._assigned[row])
            self._changed.notify_all()
            while any(self._segment_of[row] < 0 for row in wanted):
                if self._fault is not None:
                    raise self._fault
                self._changed.wait(timeout=1.0)

    def _await(self, wanted: list[int]) -> None:
        """Return when another process has put these rows into the folder. Whoever started both ends this one
        where that one dies."""
        pause = _FIRST_PAUSE
        while any(self._segment_of[row] < 0 for row in wanted):
            self._find_segments()
            if any(self._segment_of[row] < 0 for row in wanted):
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def finish(self) -> None:
        """Prepare what is left, and wait for it. Raises DataError, EnvironmentFault."""
        if not self.is_complete and self._workers and (self._crew is None or self._waits):
            self.follow(self._order)
        if self._crew is None:
            self.ensure(np.flatnonzero(self._segment_of < 0).tolist())
        else:
            with self._changed:
                while not self.is_complete:
                    if self._fault is not None:
                        raise self._fault
                    self._changed.wait(timeout=1.0)
        self.refuse_long()

    def long_rows(self, limit: int) -> list[int]:
        """Rows that may be longer than `limit` tokens, judged by their bytes.

        A token of byte-level BPE is a byte at least, and what a template writes around a message is no longer
        than what JSON does. One that slips through is still refused, when it is prepared.
        """
        surely = limit - _PREAMBLE_BYTES if self._workshop.order.byte_level else limit // _DOUBT
        return np.flatnonzero(self.index.size >= max(1, surely)).tolist()

    def refuse_long(self) -> None:
        """Raise DataError when the length limit refuses rows that are prepared."""
        with self._changed:
            told = [one for segment in self._segments for one in segment.about["too_long"]]
        if told:
            raise self._too_long(sorted((int(line), int(tokens)) for line, tokens in told))

    def keep(self) -> None:
        """Write what was held back until it was known that nothing is refused. Raises DiskError."""
        if self._folder is None:
            return
        self._keep_hold()
        write_index(self._folder, self.index)
        for segment in self._unsaved:
            segment.save(self._folder)
        self._unsaved.clear()

    def close(self) -> None:
        """End what runs, let go of the file."""
        if self._crew is not None:
            with self._changed:
                self._fault = self._fault or EnvironmentFault("closed")
                self._waits = False
                self._changed.notify_all()
            self._crew.close()
            self._crew = None
        self._workshop.close()
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _keep_hold(self) -> None:
        """From now on nobody prunes the folder. Raises DiskError."""
        if self._folder is not None and self._hold is None:
            with disk_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
            self._hold = Hold(self._folder)

    def _find_segments(self) -> None:
        if self._folder is not None and self._folder.is_dir():
            for path in sorted(set(self._folder.glob(f"*{SUFFIX}")) - self._seen):
                segment = open_segment(path)
                if segment is not None:
                    self._seen.add(path)
                    self._take(segment)

    def _take(self, segment: Segment) -> None:
        """Take a segment in; rows that another one has already are the same there."""
        rows = segment.row
        if rows.size and (rows.min() < 0 or rows.max() >= self.index.num_rows):
            return
        fresh = self._segment_of[rows] < 0
        if not fresh.all() and not self.follows:
            return  # of another writer: a part of it would be counted twice
        with self._changed:
            self._segments.append(segment)
            places = np.arange(rows.shape[0], dtype=np.int32)
            self._place_of[rows[fresh]] = places[fresh]
            self._segment_of[rows[fresh]] = len(self._segments) - 1
            self._assigned[rows] = True
            self._ready += int(fresh.sum())
            self._changed.notify_all()

    def _prepare_here(self, rows: list[int]) -> None:
        with self._here:
            self._prepare_alone([row for row in rows if self._segment_of[row] < 0])

    def _prepare_alone(self, rows: list[int]) -> None:
        segment = self._workshop.prepare([self._place(row) for row in rows])
        if self._folder is not None and self._workshop.order.stamp[0] >= _HELD_BYTES:
            self._keep_hold()
            segment = _read_back(segment.save(self._folder))
        elif self._folder is not None:
            self._unsaved.append(segment)
        self._take(segment)

    def _place(self, row: int) -> Place:
        index = self.index
        return row, int(index.start[row]), int(index.size[row]), int(index.line[row])

    def _next_job(self) -> Job | None:
        with self._changed:
            while self._waits and not self._urgent and self._at >= self._order.shape[0]:
                self._changed.wait()
            if self._fault is not None:
                return None
            most = (*_FIRST_JOBS, _JOB_ROWS)[min(self._jobs, len(_FIRST_JOBS))]
            rows = self._wanted_next(most)
            if not rows:
                return None
            self._jobs += 1
            self._assigned[rows] = True
            return {"prepare": [self._place(row) for row in rows], "folder": str(self._folder)}

    def _wanted_next(self, most: int) -> list[int]:
        rows: dict[int, None] = {}
        size = 0
        while len(rows) < most and size < _JOB_BYTES:
            if self._urgent:
                row = self._urgent.popleft()
            elif self._at < self._order.shape[0]:
                row = int(self._order[self._at])
                self._at += 1
            else:
                break
            if not self._assigned[row] and row not in rows:
                rows[row] = None
                size += int(self.index.size[row])
        return list(rows)

    def _hear(self, job: Job, answer: dict[str, object] | HoneError) -> None:
        del job
        if isinstance(answer, HoneError):
            fault: HoneError | None = answer
        else:
            fault = None
            try:
                self._take(_read_back(Path(str(answer["segment"]))))
            except EnvironmentFault as error:
                fault = error
        if fault is not None:
            with self._changed:
                self._fault = self._fault or fault
                self._changed.notify_all()

    def _too_long(self, rows: list[tuple[int, int]]) -> DataError:
        limit = self._workshop.order.max_length
        return DataError(
            f"{len(rows)} of {self._ready} rows are longer than {limit:,} tokens; "
            f"the longest has {max(tokens for _, tokens in rows):,}",
            where=", ".join(f"{Origin(self.name, line)} ({n:,})" for line, n in rows[:5]),
            remedy="raise data.max_length, or set data.too_long to 'drop' (leave them out), "
            "'oldest' (leave out their oldest turns), 'cut' (keep their beginning) or 'share'",
        )


def _read_back(path: Path) -> Segment:
    segment = open_segment(path)
    if segment is None:
        raise EnvironmentFault(
            "a segment of prepared rows was not read back as it was written",
            where=str(path),
            remedy="is the disk failing? point the cache elsewhere (HONE_CACHE)",
        )
    return segment
