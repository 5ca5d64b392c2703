"""HTTP/1.1 as uvicorn speaks it, with two rules more: heads come within a time, and connections are not without end.

Bodies are the gate's affair; before the head is whole no request exists that the gate could see, and uvicorn itself
waits for it without end, so that a caller who sends a byte a minute would keep a connection for as long as it likes.
"""

from __future__ import annotations

import asyncio
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 20.0
_TOO_SLOW: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n"
    b"x-should-retry: false\r\n\r\n"
)
_TOO_MANY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n"
    b"retry-after: 1\r\n\r\n"
)


class Connection(H11Protocol):
    """One connection, closed where it, or a request on it, does not say within `head_s` what it wants.

    A connection beyond `most` is closed at once; those that are there go on. (uvicorn's own `limit_concurrency` would
    refuse their requests instead, so whoever opened many would shut out everybody.)
    """

    head_s: float = HEAD_S
    most: int = 2000
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller is there."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_TOO_MANY)
            transport.close()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Bytes came; a head that is whole stops the clock, the first bytes of another start it."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._watch_head()
        else:
            self._forget_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        self._forget_head()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_s, self._give_up)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.write(_TOO_SLOW)
            self.transport.close()


def bounded(most: int) -> type[Connection]:
    """A kind of connection of which a server holds at most so many."""
    return type("BoundedConnection", (Connection,), {"most": most})
