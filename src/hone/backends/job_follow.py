"""Follows a job of a service from its first event to its end, over lost connections. It knows no screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from hone.backends.job_api import Answer, JobApi, Unreachable, job_path, listed, persist

_T = TypeVar("_T")

PATIENCE_SECONDS: Final = 900.0
"""How long a service may be silent before who follows gives up; the job itself goes on."""
_STOPPED_PATIENCE_SECONDS: Final = 15.0
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
_PAGE: Final = 100
_SOON_SECONDS, _LATE_SECONDS, _GROWTH = 0.2, 4.0, 1.5


@dataclass
class JobFollower:
    """The events of a job, each once, oldest first; `job` is how it stood when last asked.

    `stop` set from another thread asks the service to cancel the job; following goes on to its end.
    """

    api: JobApi
    job: Answer
    say: Callable[[str], object]
    """Told when the connection is lost and found."""
    stop: threading.Event = field(default_factory=threading.Event)
    patience_seconds: float = PATIENCE_SECONDS
    _seen: set[str] = field(default_factory=set[str])
    _asked_to_end: bool = False

    @property
    def id(self) -> str:
        """The job's id."""
        return str(self.job["id"])

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.job.get("status") in ENDED

    def events(self) -> Iterator[Answer]:
        """Every event from the first to the job's last. Raises Unreachable when patience ends."""
        pause = _SOON_SECONDS
        while True:
            # The state first: events that are read after it include all that led to it.
            self.job = self._patiently(lambda: self.api.job(self.id))
            fresh = self.events_so_far()
            yield from fresh
            if self.has_ended:
                return
            pause = _SOON_SECONDS if fresh else min(_LATE_SECONDS, pause * _GROWTH)
            if self.stop.is_set():
                self._end()
                time.sleep(_SOON_SECONDS)
            else:
                self.stop.wait(pause)

    def events_so_far(self) -> list[Answer]:
        """What happened up to now and was not told yet, oldest first."""
        return self._patiently(self._unseen)

    def _unseen(self) -> list[Answer]:
        """Events that were not told yet, oldest first."""
        found: list[Answer] = []
        after: str | None = None
        while True:
            page = self.api.events(self.id, after=after, limit=_PAGE)
            items = listed(page)
            fresh = [one for one in items if str(one["id"]) not in self._seen]
            found += fresh
            if not items or len(fresh) < len(items) or not page.get("has_more"):
                break
            after = str(items[-1]["id"])
        told: dict[str, Answer] = {str(one["id"]): one for one in reversed(found)}
        self._seen |= told.keys()
        return list(told.values())

    def _end(self) -> None:
        if self._asked_to_end:
            return
        self._patiently(lambda: self.api.post(f"{job_path(self.id)}/cancel"))
        self._asked_to_end = True

    def _patiently(self, work: Callable[[], _T]) -> _T:
        if not self.stop.is_set():
            try:
                return persist(
                    work, patience_seconds=self.patience_seconds, say=self.say, stop=self.stop
                )
            except Unreachable:
                if not self.stop.is_set():
                    raise
        return persist(work, patience_seconds=_STOPPED_PATIENCE_SECONDS, say=self.say)
