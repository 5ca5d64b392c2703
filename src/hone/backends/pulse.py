"""The pulse of a rank: one page of memory that the rank writes and its launcher reads, without a word between them.

So a sign of life costs no system call, cannot be lost, and never makes a rank wait for a launcher that is busy.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hone.engine.ranks import Doing

_PAGE = mmap.PAGESIZE
# The page: turn (Q), at and pack_seconds (d), index of the kind and bytes of the text (Q), then the text.
_TEXT = 40
_KINDS: tuple[Doing, ...] = ("work", "pack", "wait")  # by their index in the page
_TRIES = 100


@dataclass(frozen=True)
class Sign:
    """The last sign of life of a rank."""

    doing: Doing
    what: str
    at: float
    """When it was given, by `time.monotonic`, which all processes of a machine share."""
    pack_seconds: float
    """What the longest Pack takes, as measured; 0: not known yet."""


class Page:
    """The page, on either side. `descriptor` is passed to the rank."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, _PAGE)
        # Native words: each is stored at once. struct.pack_into clears all of its bytes first, and who reads
        # between sees a rank that last moved when the machine was started.
        self._whole = memoryview(self._memory)
        self._words = self._whole[:_TEXT].cast("Q")
        self._times = self._whole[8:24].cast("d")
        self._turn = 0
        self._pack_seconds = 0.0

    @classmethod
    def make(cls) -> Page:
        """A new page, with a first sign: the rank is about to start."""
        descriptor = os.memfd_create("hone-pulse", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _PAGE)
        page = cls(descriptor)
        page.beat("work", "starting")
        return page

    def beat(self, doing: Doing, what: str) -> None:
        """The rank begins this now."""
        text = what.encode()[: _PAGE - _TEXT]
        self._turn += 2
        self._words[0] = self._turn - 1  # odd: what follows is being written
        self._times[0], self._times[1] = time.monotonic(), self._pack_seconds
        self._words[3], self._words[4] = _KINDS.index(doing), len(text)
        self._whole[_TEXT : _TEXT + len(text)] = text
        self._words[0] = self._turn

    def expect(self, pack_seconds: float) -> None:
        """The longest Pack takes so long; told with the next beat."""
        self._pack_seconds = pack_seconds

    def read(self) -> Sign:
        """The last sign, never half of one: its text is empty where the rank stands still while writing it."""
        left = _TRIES
        while True:
            turn = self._words[0]
            at, pack_seconds = self._times[0], self._times[1]
            kind, length = self._words[3], self._words[4]
            text = bytes(self._whole[_TEXT : _TEXT + length])
            if turn % 2 == 0 and self._words[0] == turn:
                return Sign(_KINDS[kind], text.decode(errors="replace"), at, pack_seconds)
            left -= 1
            if not left:
                return Sign(_KINDS[kind], "", at, pack_seconds)

    def close(self) -> None:
        """Let go of the memory."""
        for view in (self._words, self._times, self._whole):
            view.release()
        self._memory.close()
        os.close(self.descriptor)
