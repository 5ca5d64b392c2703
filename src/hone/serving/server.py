"""A running server: its socket, uvicorn, and an orderly end. It knows no requests."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final

import uvicorn

from hone.errors import ConfigError, EnvironmentFault, HoneError
from hone.infer.writer import Writer
from hone.serving.answering import Answering
from hone.serving.app import make_app
from hone.serving.connection import bounded
from hone.serving.connections import AT_ONCE, BoundedServer, most_connections
from hone.serving.gate import LOOPBACK, Rules

_START_S: Final = 30.0
_END_S: Final = 3
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - the address as a user may give it


@dataclass(frozen=True)
class Address:
    """Where to listen, and who may ask."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes a free one."""
    key: str | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()
    """Host names by which it may be called beside its own; unused where `host` is no loopback address."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK

    def check(self) -> None:
        """Raises ConfigError for an open door without a key."""
        if not self.is_loopback and not self.key:
            raise ConfigError(
                f"{self.host} can be reached from other machines, and no API key is set",
                remedy="set HONE_API_KEY, or leave out --host",
            )

    @property
    def rules(self) -> Rules:
        """What its gate lets pass. Raises ConfigError as `check` does."""
        self.check()
        if self.is_loopback:
            return Rules(self.key, LOOPBACK | {name.lower() for name in self.names})
        return Rules(self.key, frozenset(self.names) | {self.host} if self.names else None)


class Server:
    """Serves a `Writer` until it is told to end. Raises EnvironmentFault where the port is taken."""

    def __init__(self, writer: Writer, address: Address, *, most_tokens: int = 2048) -> None:
        self._writer = writer
        rules = address.rules
        self._socket = listen(address)
        self.port: int = self._socket.getsockname()[1]
        self._answering = Answering(writer, most_tokens=most_tokens)
        app: Any = make_app(self._answering, rules)
        self._uvicorn = BoundedServer(
            uvicorn.Config(
                app,
                http=bounded(most_connections()),
                backlog=AT_ONCE,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                lifespan="off",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_END_S,
                ws="none",
            )
        )
        shown = f"[{address.host}]" if ":" in address.host else address.host
        self.url = f"http://{'127.0.0.1' if shown == _EVERYWHERE else shown}:{self.port}"
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """What an OpenAI client is given."""
        return f"{self.url}/v1"

    def run(self) -> None:
        """Serve on this thread until SIGINT, SIGTERM or `stop`; afterwards everything is freed."""
        try:
            with signals_left():
                self._uvicorn.run(sockets=[self._socket])
        finally:
            self._answering.close()
            self._writer.close()
            with contextlib.suppress(OSError):
                self._socket.close()

    def start(self) -> None:
        """Serve on a thread of its own; returns when it answers."""
        self._thread = threading.Thread(target=self.run, name="hone-server", daemon=True)
        self._thread.start()
        self.wait_until(lambda: self._uvicorn.started)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Raises HoneError where it does not come about."""
        end = time.monotonic() + _START_S
        while not ready():
            if time.monotonic() > end or (self._thread and not self._thread.is_alive()):
                raise HoneError("the server did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ask it to end; from another thread also wait for it."""
        self._uvicorn.should_exit = True
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join()


@contextlib.contextmanager
def signals_left() -> Generator[None]:
    """uvicorn ends at a signal and then raises it anew: by then it has been heeded, and there is more to free."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _heeded) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heeded(*_: object) -> None:
    """The signal has been answered already."""


def listen(address: Address) -> socket.socket:
    """A socket that listens. Raises EnvironmentFault where the port is taken."""
    kind = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(kind, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((address.host, address.port))
        made.listen(1024)
    except OSError as error:
        made.close()
        taken = error.errno == errno.EADDRINUSE
        raise EnvironmentFault(
            f"port {address.port} is in use"
            if taken
            else f"cannot listen: {error.strerror or error}",
            where=f"{address.host}:{address.port}",
            remedy="set --port to another one (0 takes a free one)" if taken else "see --host",
        ) from error
    return made
