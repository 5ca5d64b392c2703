"""The pulse of a rank: one page of memory that the rank writes and its launcher reads, without a word between them.

So a sign of life costs no system call, cannot be lost, and never makes a rank wait for a launcher that is busy.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hone.engine.ranks import Doing

_PAGE = mmap.PAGESIZE
_HEAD = struct.Struct("<QddHH")  # turn, at, pack_seconds, index of the kind, bytes of the text
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
        text = what.encode()[: _PAGE - _HEAD.size]
        self._turn += 2
        self._put(self._turn - 1, doing, 0)  # odd: what follows is being written
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text
        self._put(self._turn, doing, len(text))

    def expect(self, pack_seconds: float) -> None:
        """The longest Pack takes so long; told with the next beat."""
        self._pack_seconds = pack_seconds

    def read(self) -> Sign:
        """The last sign, never half of one: its text is empty where the rank stands still while writing it."""
        left = _TRIES
        while True:
            read: tuple[int, float, float, int, int] = _HEAD.unpack_from(self._memory)
            turn, at, pack_seconds, kind, length = read
            text = bytes(self._memory[_HEAD.size : _HEAD.size + length])
            if turn % 2 == 0 and _HEAD.unpack_from(self._memory)[0] == turn:
                return Sign(_KINDS[kind], text.decode(errors="replace"), at, pack_seconds)
            left -= 1
            if not left:
                return Sign(_KINDS[kind], "", at, pack_seconds)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        os.close(self.descriptor)

    def _put(self, turn: int, doing: Doing, length: int) -> None:
        now = time.monotonic()
        _HEAD.pack_into(self._memory, 0, turn, now, self._pack_seconds, _KINDS.index(doing), length)
