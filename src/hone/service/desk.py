"""What every path of the API works with: the store, the bytes, the operator's word, and who asks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from hone.service.operator import Operator
from hone.service.records import Key
from hone.service.speakers import Speakers
from hone.service.store import Store
from hone.service.vault import Vault
from hone.serving.refusal import Refusal


@dataclass
class Desk:
    """The service, as its paths see it."""

    store: Store
    vault: Vault
    operator: Operator
    speakers: Speakers
    started: int
    wake: threading.Event = field(default_factory=threading.Event)
    """Set when there is something to do beside answering."""
    answered: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    """How many requests were answered, by method and status."""
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict[str, asyncio.Lock])

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncGenerator[None]:
        """Requests of one name come one after the other, in the order of their coming."""
        lock = self._turns.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._turns.get(name) is lock:
                del self._turns[name]

    def base_of(self, model: str, owner: str, *, param: str = "model") -> str:
        """The base model behind a name that an owner may train from. Raises Refusal."""
        if model in self.operator.models:
            return model
        known = self.store.model(model, owner)
        if known is None:
            offered = (
                ", ".join(self.operator.models) or "none yet: the operator names them by --model"
            )
            raise Refusal(
                400,
                f"no model {model[:120]!r} can be fine-tuned here; base models are: {offered}",
                param=param,
                code="model_not_found",
            )
        return known.base


def desk_of(request: Request) -> Desk:
    """The desk of the application that got the request."""
    return cast("Desk", request.app.state.desk)


def caller_of(request: Request) -> Key:
    """Whose key came with a request. Raises Refusal 401."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    given = given.strip()
    key = desk_of(request).store.key_of(given) if kind.lower() == "bearer" and given else None
    if key is None:
        raise Refusal(
            401,
            "this API key is not known, or was revoked"
            if given
            else "an API key is needed: Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    return key


def admin_of(request: Request) -> Key:
    """Whose key came with a request that only an administrator's may make. Raises Refusal 401 and 403."""
    key = caller_of(request)
    if not key.is_admin:
        raise Refusal(
            403,
            "this is for administrators' keys: `hone service keys create NAME --admin`",
            code="insufficient_permissions",
        )
    return key


def is_again(request: Request) -> bool:
    """Whether a client says that it asks for the second time."""
    return request.headers.get("x-stainless-retry-count", "0").strip() not in ("", "0")


AtDesk = Annotated[Desk, Depends(desk_of)]
Caller = Annotated[Key, Depends(caller_of)]
Admin = Annotated[Key, Depends(admin_of)]
