"""The beacon of a rank whose run spans several machines: signs of life and faults, told through the ranks' own store.

A launcher sees only its own machine's ranks. So each rank lays its last sign down where all can read it, and one rank
of each machine tells its launcher of the others. Lines of JSON, never a pickle.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from hone.backends.post import Message
from hone.backends.pulse import Page, Sign

EVERY_SECONDS: Final = 3.0
_FAULT: Final = "hone/fault"


class Store(Protocol):
    """torch's TCPStore, as far as it is needed."""

    def set(self, key: str, value: str, /) -> object:
        """Keep a value."""
        ...

    def get(self, key: str, /) -> bytes:
        """The value of a key, which is there."""
        ...

    def check(self, keys: list[str], /) -> bool:
        """Whether all of them are there."""
        ...


class Beacon:
    """`rank` tells of itself; with `tell`, it also hears of the ranks `others`, and passes that on."""

    def __init__(
        self,
        store: Store,
        page: Page,
        rank: int,
        others: Iterable[int] = (),
        tell: Callable[[Message], object] | None = None,
    ) -> None:
        self._store = store
        self._page = page
        self._rank = rank
        self._others = list(others)
        self._tell = tell
        self._turn = threading.Lock()  # one word at a time over one connection
        self._count = 0

    def start(self) -> None:
        """From now on, until the process ends or the store is gone."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._round()
            except Exception:  # noqa: BLE001 - the store is gone: silence is what the others notice
                return
            time.sleep(EVERY_SECONDS)

    def _round(self) -> None:
        sign = self._page.read()
        self._count += 1
        with self._turn:
            age = time.monotonic() - sign.at  # clocks of two machines have nothing in common
            told = [self._count, sign.doing, sign.what, sign.pack_seconds, age]
            self._store.set(f"hone/sign/{self._rank}", json.dumps(told))
            heard = {
                rank: json.loads(self._store.get(f"hone/sign/{rank}"))
                for rank in self._others
                if self._store.check([f"hone/sign/{rank}"])
            }
        if self._tell is not None:
            self._tell({"others": heard})

    def tell_fault(self, message: Message) -> None:
        """Say why this rank ends, to ranks that will only see that it did."""
        try:
            with self._turn:
                if not self._store.check([_FAULT]):
                    self._store.set(_FAULT, json.dumps({**message, "rank": self._rank}))
        except Exception:  # noqa: BLE001 - whoever holds the store is gone: nobody can be told
            return

    def cause(self, seconds: float) -> Message | None:
        """Why another rank ended, if it says so within so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                with self._turn:
                    if self._store.check([_FAULT]):
                        found: Message = json.loads(self._store.get(_FAULT))
                        return None if found["rank"] == self._rank else found
            except Exception:  # noqa: BLE001 - as above
                return None
            time.sleep(0.2)
        return None


class Elsewhere:
    """What a launcher has heard of ranks on other machines."""

    def __init__(self) -> None:
        self.signs: dict[int, Sign] = {}
        """By rank, by this machine's clock."""
        self.heard: dict[int, float] = {}
        """When there was last anything new of each."""
        self._counts: dict[int, int] = {}

    def take(self, told: dict[str, Any]) -> None:
        """One round of a beacon."""
        now = time.monotonic()
        for name, (count, doing, what, pack_seconds, age) in told.items():
            rank = int(name)
            if self._counts.get(rank) != count:
                self._counts[rank] = count
                self.signs[rank] = Sign(doing, what, now - age, pack_seconds)
                self.heard[rank] = now
