"""What every request passes first: who may ask, from where, how much, and that no fault shows its inside.

Plain ASGI, around any application. It knows no models.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

from hone.serving.refusal import Refusal, error_object

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_OPEN_PATHS: Final = frozenset({"/health"})
_DIGITS: Final = 18  # of a length; longer ones are no sizes
_SAFE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass(frozen=True)
class Rules:
    """Who may ask, and how much."""

    key: str | None = None
    """What every caller must bring; None asks for nothing."""
    hosts: frozenset[str] | None = LOOPBACK
    """Names under which the server may be called, without port; None: any."""
    body_bytes: int = 16 * 2**20
    """Largest body."""
    body_s: float = 60.0
    """Time for a body to come, and as much more as its bytes take at `slowest`."""
    slowest: float = 64 * 2**10
    """Bytes a second."""
    larger: Callable[[str], int | None] | None = None
    """The largest body of a path, where it is not `body_bytes`."""


class Gate:
    """Refuses what may not pass; gives each answer an id; turns faults into error objects."""

    def __init__(self, app: App, rules: Rules) -> None:
        self._app = app
        self._rules = rules
        self._key = None if rules.key is None else _digest(rules.key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(16)}"
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                marks = [(b"x-request-id", request_id.encode()), (b"cache-control", b"no-store")]
                headers = [*message.get("headers", []), *marks]
                message = {**message, "headers": [*headers, *_SAFE]}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._bounded(scope, receive), sending)
        except Refusal as refusal:
            if not begun:
                response = JSONResponse(refusal.body, refusal.status, headers=refusal.headers)
                await response(scope, receive, sending)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a client never sees a traceback
            print_fault(error, request_id)
            if not begun:
                told = error_object(500, f"the server failed at this request ({request_id})")
                await JSONResponse(told, 500)(scope, receive, sending)

    def _check(self, scope: Scope) -> None:
        headers = _headers(scope)
        if self._rules.hosts is not None:
            # A page elsewhere may point a name of its own at this machine: the name tells.
            for name, value in (
                ("host", headers.get("host", "")),
                ("origin", headers.get("origin")),
            ):
                if value is not None and _host(value) not in self._rules.hosts:
                    raise Refusal(403, f"this server is not called by that name ({name} header)")
        length = headers.get("content-length", "0")
        most = self._most(scope)
        if not length.isdecimal() or len(length) > _DIGITS or int(length) > most:
            raise _too_large(most)
        if self._key is not None and scope["path"] not in _OPEN_PATHS:
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(_digest(given), self._key):
                raise Refusal(
                    401,
                    "an API key is needed, and this is not it"
                    if given
                    else "an API key is needed: Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Bodies within their size and time."""
        most = self._most(scope)
        taken = 0
        is_whole = False
        deadline = asyncio.get_running_loop().time() + self._rules.body_s

        async def receiving() -> Message:
            nonlocal taken, is_whole
            if is_whole:
                return await receive()
            left = deadline + taken / self._rules.slowest - asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(max(left, 0.001)):  # no task for each chunk
                    message = await receive()
            except TimeoutError as error:
                # Clients ask again by themselves after 408; a slow one would be as slow then.
                headers = {"x-should-retry": "false", "connection": "close"}
                raise Refusal(408, "the body took too long to come", headers=headers) from error
            taken += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if taken > most:
                raise _too_large(most)
            return message

        return receiving

    def _most(self, scope: Scope) -> int:
        rules = self._rules
        larger = None if rules.larger is None else rules.larger(str(scope["path"]))
        return rules.body_bytes if larger is None else larger


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body is larger than {most:,} bytes", code="request_too_large")


def print_fault(error: BaseException, request_id: str) -> None:
    """A fault of ours, for whoever runs the server."""
    sys.stderr.write(f"request {request_id} failed:\n")
    traceback.print_exception(error, file=sys.stderr)


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): v.decode("latin-1") for name, v in scope["headers"]}


def _host(value: str) -> str | None:
    """The name in a Host or Origin header."""
    try:
        return urlsplit(value if "//" in value else f"//{value}").hostname
    except ValueError:
        return None


def _digest(key: str) -> bytes:
    # Digests have one length, so that comparing takes one time.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
