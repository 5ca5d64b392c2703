"""The application: paths to questions and answers, over Starlette. It knows no model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hone.errors import HoneError
from hone.serving.answering import Answering
from hone.serving.gate import App, Gate, Receive, Rules, Scope, Send, print_fault
from hone.serving.question import read_question
from hone.serving.refusal import Refusal, error_object, refusal_of

_ALIVE_S: Final = 15.0  # between signs of life while a reply waits for its turn
_T = TypeVar("_T")


class ClientGone(Exception):
    """The connection was closed before its answer was ready."""


def make_app(answering: Answering, rules: Rules) -> App:
    """The ASGI application for `answering`, behind a `Gate`."""
    started = int(time.time())

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def models(_: Request) -> Response:
        names = await answering.names()
        return JSONResponse({"object": "list", "data": [_model(name, started) for name in names]})

    async def model(request: Request) -> Response:
        name = str(request.path_params["name"])
        if name not in await answering.names():
            raise Refusal(
                404, f"no model {name!r} is served here", param="model", code="model_not_found"
            )
        return JSONResponse(_model(name, started))

    async def chat(request: Request) -> Response:
        question = read_question(await request.body())
        if not question.stream:
            return JSONResponse(await while_listening(answering.whole(question), request.receive))
        chunks = answering.chunks(question)
        first: dict[str, Any] = await while_listening(anext(chunks), request.receive)
        return Events(first, chunks)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return JSONResponse(error.body, error.status, headers=error.headers)

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = f"{request.method} {request.url.path} is not offered here"
        return JSONResponse(
            error_object(error.status_code, said), error.status_code, headers=error.headers
        )

    async def fault(_: Request, error: Exception) -> Response:
        assert isinstance(error, HoneError)
        refusal = refusal_of(error)
        return JSONResponse(refusal.body, refusal.status, headers=refusal.headers)

    async def crashed(_: Request, error: Exception) -> Response:
        del error  # the gate prints it
        return JSONResponse(error_object(500, "the server failed at this request"), 500)

    async def gone(_: Request, error: Exception) -> Response:
        del error
        return Response(status_code=499)  # nobody reads it

    routes = [
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        Refusal: refused, HTTPException: unknown, HoneError: fault, ClientGone: gone, Exception: crashed,
    }  # fmt: skip
    return Gate(Starlette(routes=routes, exception_handlers=handlers), rules)


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "hone"}


async def while_listening(work: Coroutine[Any, Any, _T] | Any, receive: Receive) -> _T:
    """What `work` gives, which is cancelled when the client goes. Raises ClientGone then."""
    doing: asyncio.Future[Any] = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientGone
    finally:
        for task in (doing, leaving):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Events(Response):
    """Chunks as server-sent events, until they end or the client goes."""

    media_type = "text/event-stream"

    def __init__(self, first: dict[str, Any], chunks: AsyncGenerator[dict[str, Any]]) -> None:
        self._first = first
        self._chunks = chunks
        super().__init__()
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them. When the client goes, the replies behind them end too."""
        start: dict[str, Any] = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        with contextlib.suppress(ClientGone):
            await while_listening(self._all(send), receive)
        del scope

    async def _all(self, send: Send) -> None:
        async def say(text: str, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": more})

        try:
            await say(_event(self._first))
            while True:
                upcoming = asyncio.ensure_future(anext(self._chunks))
                try:
                    while not (await asyncio.wait({upcoming}, timeout=_ALIVE_S))[0]:
                        await say(": waiting\n\n")
                    chunk = upcoming.result()
                finally:
                    if not upcoming.done():
                        upcoming.cancel()
                        with contextlib.suppress(asyncio.CancelledError):
                            await upcoming
                await say(_event(chunk))
        except StopAsyncIteration:
            await say("data: [DONE]\n\n", more=False)
        except Refusal as refusal:  # too late for a status
            await say(_event(refusal.body), more=False)
        except Exception as error:  # noqa: BLE001 - a client never sees a traceback
            print_fault(error, "of a stream")
            told = error_object(500, "the server failed at this reply")
            await say(_event(told), more=False)
        finally:
            await self._chunks.aclose()


def _event(told: dict[str, Any]) -> str:
    return f"data: {json.dumps(told, ensure_ascii=False, allow_nan=False)}\n\n"
