"""The running server: its folder, its socket, and what it does beside answering. It knows no path of the API."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvicorn

from hone.errors import ConfigError, HoneError
from hone.runs.lock import RunLock
from hone.service.app import make_app
from hone.service.checks import Checks
from hone.service.desk import Desk
from hone.service.hooks import Hooks, hook_secret
from hone.service.operator import Operator
from hone.service.readiness import make_ready
from hone.service.retention import let_go
from hone.service.shift import Shift, Slots
from hone.service.speakers import Speakers
from hone.service.store import Store
from hone.service.vault import Vault
from hone.serving.connection import bounded
from hone.serving.connections import AT_ONCE, BoundedServer, most_connections
from hone.serving.gate import LOOPBACK
from hone.serving.server import Address, listen, signals_left

logger = logging.getLogger("hone")

_START_S: Final = 30.0
_ROUND_S: Final = 1.0
_LET_GO_S: Final = 60.0
_HEADER_BYTES: Final = 32 * 2**10


class Service:
    """The service over a folder, which no other server may use at the same time.

    Raises LockedError where one does, EnvironmentFault where the port is taken or the store damaged, ConfigError for a
    door that is open to other machines without TLS in front being known.
    """

    def __init__(
        self, root: Path, operator: Operator, address: Address, slots: Slots | None = None
    ) -> None:
        """`slots` says which workers it keeps; None: others work, or nobody."""
        os.umask(0o077)
        self.store = Store(root)
        self._lock = RunLock(root / "server.lock")
        self._lock.acquire()
        self.store.check()
        vault = Vault(root)
        vault.sweep(self.store.has_file)
        secret = hook_secret(root, os.environ.get("HONE_WEBHOOK_SECRET"))
        self._hooks = Hooks(self.store, operator.webhooks, secret)
        self._shift = None if slots is None else Shift(root, operator.models, slots)
        self.desk = Desk(
            self.store, vault, operator, Speakers(root, operator.models), int(time.time())
        )
        self._socket = listen(address)
        self.port: int = self._socket.getsockname()[1]
        shown = "127.0.0.1" if address.host == "0.0.0.0" else address.host  # noqa: S104
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"
        app: Any = make_app(self.desk, _hosts(address))
        self._uvicorn = BoundedServer(
            uvicorn.Config(
                app,
                http=bounded(most_connections()),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                h11_max_incomplete_event_size=_HEADER_BYTES,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=3,
                backlog=AT_ONCE,
            )
        )
        self._checks = Checks(self.store)
        self._ending = threading.Event()
        self._rounds = self._make_rounds()
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """What an OpenAI client is given."""
        return f"{self.url}/v1"

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `stop`."""
        for one in self._rounds:
            one.start()
        try:
            with signals_left():
                self._uvicorn.run(sockets=[self._socket])
        finally:
            self._ending.set()
            self.desk.wake.set()
            for one in self._rounds:
                one.join(10)
            self._checks.end()
            self.desk.speakers.close()
            if self._shift is not None:
                self._shift.end()
            with contextlib.suppress(OSError):
                self._socket.close()
            with contextlib.suppress(HoneError):  # the next start reads the log
                self.store.fold()
            self._lock.release()

    def start(self) -> None:
        """Serve on a thread of its own; returns when it answers. Raises HoneError."""
        self._thread = threading.Thread(target=self.run, name="hone-service", daemon=True)
        self._thread.start()
        end = time.monotonic() + _START_S
        while not self._uvicorn.started:
            if time.monotonic() > end or not self._thread.is_alive():
                raise HoneError("the service did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ask it to end; from another thread also wait for it."""
        self._uvicorn.should_exit = True
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join()

    def _make_rounds(self) -> list[threading.Thread]:
        """What is done beside answering, each on a thread of its own: a slow address delays no worker's start."""
        last = -_LET_GO_S

        def tend() -> None:
            nonlocal last
            self._checks.look()
            make_ready(self.desk)
            self.desk.speakers.look()
            if time.monotonic() - last > _LET_GO_S:
                let_go(self.desk)
                last = time.monotonic()

        def rest() -> None:
            self._ending.wait(_ROUND_S)

        def wait() -> None:
            self.desk.wake.wait(_ROUND_S)
            self.desk.wake.clear()

        todo: list[tuple[str, Callable[[], object], Callable[[], None]]] = [
            ("rounds", tend, wait),
            ("hooks", self._hooks.send, rest),
        ]
        if self._shift is not None:
            todo.insert(0, ("workers", self._shift.look, rest))
        return [
            threading.Thread(target=self._repeat, args=one, name=f"hone-{name}", daemon=True)
            for name, *one in todo
        ]

    def _repeat(self, do: Callable[[], object], wait: Callable[[], None]) -> None:
        """Again and again; a fault of one round is told, and the next tries anew."""
        while not self._ending.is_set():
            try:
                do()
            except HoneError as error:
                logger.error("%s", error)
            except Exception:
                logger.exception("a round failed")
            wait()


def _hosts(address: Address) -> frozenset[str] | None:
    """The names by which the service may be called."""
    named = frozenset(name.lower() for name in address.names)
    if address.is_loopback:
        return LOOPBACK | named
    if not named:
        raise ConfigError(
            f"{address.host} can be reached from other machines",
            remedy="name what it is called by: --allow-host NAME (and put TLS in front of it)",
        )
    return LOOPBACK | named | {address.host}
