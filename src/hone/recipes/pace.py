"""How fast requests may leave: requests and tokens a minute over all of them, and a pause that all keep.

It knows no teacher. A limit is a level that drains evenly: a request leaves when the level is down, and raises it by
what it takes, so no minute holds more than the limit and one request.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

_MINUTE: Final = 60.0
_SPREAD: Final = 0.25  # of a pause, at random: those who waited together do not come back at once
_MOST_SPREAD_SECONDS: Final = 1.0


class Pace:
    """`await pace.leave(tokens)` returns when a request of so many tokens may be sent."""

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._requests = _Level(requests_per_minute, clock)
        self._tokens = _Level(tokens_per_minute, clock)
        self._until = 0.0

    async def leave(self, tokens: int) -> None:
        """Wait for the turn of a request of `tokens` tokens, and take it."""
        while True:
            paused = self._until - self._clock()
            if paused > 0:
                paused += random.uniform(0, min(_MOST_SPREAD_SECONDS, paused * _SPREAD))
            wait = max(paused, self._requests.wait(), self._tokens.wait())
            if wait <= 0:
                break
            await self._sleep(wait)
        self._requests.add(1)
        self._tokens.add(tokens)

    def correct(self, expected: int, real: int) -> None:
        """A request took other tokens than it was let go with."""
        self._tokens.add(real - expected)

    def pause(self, seconds: float) -> None:
        """Nobody leaves for so long."""
        self._until = max(self._until, self._clock() + seconds)


class _Level:
    """Falls by `per_minute` a minute, and never below nothing."""

    def __init__(self, per_minute: float | None, clock: Callable[[], float]) -> None:
        self._rate = None if per_minute is None else per_minute / _MINUTE
        self._clock = clock
        self._height = 0.0
        self._at = clock()

    def wait(self) -> float:
        """Seconds until the level is down."""
        if self._rate is None:
            return 0.0
        now = self._clock()
        self._height = max(0.0, self._height - (now - self._at) * self._rate)
        self._at = now
        return self._height / self._rate

    def add(self, amount: float) -> None:
        """Raise or, where a request took less than was thought, lower it."""
        self._height += amount
