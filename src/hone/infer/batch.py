"""Many replies at once over one model: who waits, who is read, who writes, and what each is told.

One thread owns the model and takes one step after the other; a conversation enters and leaves between any two of
them. It knows no HTTP and no names of models.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from hone.errors import HoneError
from hone.infer.choose import Chooser, choose
from hone.infer.completer import Wanted
from hone.infer.decoder import BASE, Decoder, Line, Seat
from hone.infer.grammar import Guide
from hone.infer.reply_text import ReplyText
from hone.infer.writer import Chance, Crowded, Ended, Piece, Tell

_PROMPT_TOKENS: Final = 512  # read of prompts in one step at most, so that those who write go on
_FIRST_GUESS_S: Final = 1.0
_STEP: Final = threading.Lock()  # models take turns: each uses every core
_T = TypeVar("_T")


class Closed(HoneError):
    """This model is not in memory any more."""

    def __init__(self) -> None:
        super().__init__("the server is closing")


@dataclass(frozen=True)
class Bounds:
    """How much is done at once."""

    rows: int = 64
    """Replies that are written at the same time."""
    waiting: int = 256
    """Requests that may wait for that."""
    memory_bytes: int = 4 * 2**30
    """What all conversations under way may take together: keys and values of their tokens."""


@dataclass(eq=False)
class Row:
    """One reply from its request to its end."""

    prompt: Sequence[int]
    chooser: Chooser
    text: ReplyText
    stop_ids: frozenset[int]
    most: int
    """Longest reply, in tokens."""
    tell: Tell
    seat: Seat
    asked_at: float = field(default_factory=time.monotonic)
    count: int = 0
    next_ids: list[int] = field(default_factory=list[int])
    cancelled: bool = False

    def cancel(self) -> None:
        """As `Ticket.cancel`."""
        self.cancelled = True

    @property
    def length(self) -> int:
        """Most tokens that the conversation comes to."""
        return len(self.prompt) + self.most


class Batch:
    """The thread that writes, and its queue."""

    def __init__(self, decoder: Decoder, bounds: Bounds, *, name: str = "model") -> None:
        self.decoder = decoder
        self.bounds = bounds
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._took_s = _FIRST_GUESS_S  # a reply's time from its entry to its end, smoothed
        self._thread = threading.Thread(target=self._run, name=f"hone-{name}", daemon=True)
        self._thread.start()

    def write(
        self,
        prompt: Sequence[int],
        wanted: Wanted,
        tell: Tell,
        *,
        text: ReplyText,
        stop_ids: frozenset[int],
        width: int,
        adapter: str = BASE,
        guide: Guide | None = None,
    ) -> Row:
        """Queue a reply. `width` is how many logits are the model's own. Raises Crowded where too many wait, Closed after `close`."""
        row = Row(
            prompt,
            Chooser(wanted, guide, width),
            text,
            stop_ids,
            wanted.max_tokens,
            tell,
            Seat(adapter),
            next_ids=list(prompt),
        )
        with self._changed:
            if self._closing:
                raise Closed
            if len(self._waiting) >= self.bounds.waiting:
                ahead = len(self._waiting) / self.bounds.rows
                raise Crowded(len(self._waiting), max(1.0, ahead * self._took_s))
            self._waiting.append(row)
            self._changed.notify()
        return row

    def between_steps(self, job: Callable[[], _T]) -> _T:
        """Run `job` on the thread that owns the model, and give what it gives."""
        done: Future[_T] = Future()
        with self._changed:
            if self._closing:
                raise Closed
            self._jobs.append((job, done))
            self._changed.notify()
        return done.result()

    @property
    def busy(self) -> int:
        """Replies under way, the waiting ones among them."""
        return len(self._rows) + len(self._waiting)

    def uses(self, adapter: str) -> bool:
        """Whether a reply under way is an adapter's."""
        with self._changed:
            return any(row.seat.adapter == adapter for row in [*self._rows, *self._waiting])

    def close(self) -> None:
        """End every reply and the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._closing or self._jobs or self._waiting or self._rows):
                    self._changed.wait()
                if self._closing:
                    break
                jobs, self._jobs = self._jobs, deque()
            for job, done in jobs:
                _settle(job, done)
            self._admit()
            if self._rows:
                self._step()
        self._shut()

    def _shut(self) -> None:
        gone = Closed()
        for row in [*self._rows, *self._waiting]:
            _told(row, Ended("length", row.count, gone))
        for _, done in self._jobs:
            done.set_exception(gone)
        self._rows.clear()
        self._waiting.clear()

    def _admit(self) -> None:
        """Let in who fits; drop who was cancelled."""
        for row in [row for row in self._rows if row.cancelled]:
            self._leave(row)
        with self._changed:
            kept = deque(row for row in self._waiting if not row.cancelled)
            self._waiting = kept
            while self._waiting and self._fits(self._waiting[0]):
                row = self._waiting.popleft()
                row.asked_at = time.monotonic()
                self._rows.append(row)
                self.decoder.enter(row.seat)

    def _fits(self, row: Row) -> bool:
        if not self._rows:
            return True
        if len(self._rows) >= self.bounds.rows:
            return False
        longest = max(row.length, *(one.length for one in self._rows))
        needed = (len(self._rows) + 1) * longest * self.decoder.bytes_per_token
        return needed <= self.bounds.memory_bytes

    def _step(self) -> None:
        lines, asking = self._lines()
        try:
            with _STEP:
                logits = self.decoder.step(lines)
                chosen = choose(logits, [row.chooser for row in asking]) if asking else []
        except Exception as error:  # noqa: BLE001 - a step that fails must not end the server
            self._fail(error)
            return
        for row, chance in zip(asking, chosen, strict=True):
            self._take(row, chance)

    def _lines(self) -> tuple[list[Line], list[Row]]:
        """What each row reads in the next step, and the rows that then write."""
        lines: list[Line] = []
        asking: list[Row] = []
        left = _PROMPT_TOKENS
        for row in self._rows:
            is_prompt = row.count == 0
            if is_prompt and left <= 0:
                continue
            part = row.next_ids[:left] if is_prompt else row.next_ids
            left -= len(part) if is_prompt else 0
            row.next_ids = row.next_ids[len(part) :]
            lines.append(Line(row.seat, part, wants_next=not row.next_ids))
            if not row.next_ids:
                asking.append(row)
        return lines, asking

    def _take(self, row: Row, chance: Chance) -> None:
        """One token of a reply."""
        row.count += 1
        if chance.token_id in row.stop_ids:
            self._end(row, "stop")
            return
        row.chooser.take(chance.token_id)
        piece = row.text.push(chance)
        if piece is not None:
            _told(row, piece)
        guide = row.chooser.guide
        if row.text.is_stopped or (guide is not None and guide.is_over):
            self._end(row, "stop")
        elif row.count >= row.most:
            self._end(row, "length")
        else:
            row.next_ids = [chance.token_id]

    def _end(self, row: Row, finish: Literal["stop", "length"]) -> None:
        rest = row.text.end()
        if rest is not None:
            _told(row, rest)
        if row.text.is_stopped:
            finish = "stop"
        self._took_s += 0.1 * (time.monotonic() - row.asked_at - self._took_s)
        self._leave(row)
        _told(row, Ended(finish, row.count))

    def _leave(self, row: Row) -> None:
        self._rows.remove(row)
        self.decoder.leave(row.seat)

    def _fail(self, error: Exception) -> None:
        """Tell everyone under way; the next ones begin anew."""
        traceback.print_exception(error, file=sys.stderr)
        said = HoneError("the model failed at this reply", remedy="see the server's own output")
        for row in list(self._rows):
            self._leave(row)
            _told(row, Ended("length", row.count, said))


def _settle(job: Callable[[], Any], done: Future[Any]) -> None:
    try:
        done.set_result(job())
    except Exception as error:  # noqa: BLE001 - it is raised where the job was given
        done.set_exception(error)


def _told(row: Row, what: Piece | Ended) -> None:
    if not row.cancelled:
        row.tell(what)
