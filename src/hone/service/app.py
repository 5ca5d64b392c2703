"""The application: every path of the API over FastAPI, behind a gate. It starts no process."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from hone import __version__
from hone.errors import DiskError, HoneError
from hone.service.desk import Desk
from hone.service.routes import chat, files, jobs, models, state, trainables, uploads
from hone.service.routes.files import largest_upload
from hone.service.tables.database import StoreBusy
from hone.serving.app import ClientGone
from hone.serving.gate import App, Gate, Message, Receive, Rules, Scope, Send
from hone.serving.refusal import Refusal, error_object, refusal_of

_MOST_FILE_BYTES = 512 * 2**20
_METHODS = frozenset({"DELETE", "GET", "POST"})
_ROUTERS = (
    state.router,
    files.router,
    uploads.router,
    jobs.router,
    models.router,
    chat.router,
    trainables.router,
)


def make_app(desk: Desk, hosts: frozenset[str] | None) -> App:
    """The ASGI application; `hosts` are the names by which it may be called, None: any."""
    rules = Rules(
        hosts=hosts,
        body_bytes=desk.operator.most_body_bytes,
        larger=partial(largest_upload, file_bytes=_MOST_FILE_BYTES),
    )
    return _counted(desk, Gate(make_api(desk), rules))


def _counted(desk: Desk, app: App) -> App:
    """Count answers by method and status."""

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else "OTHER"
                told = (method, int(message["status"]))
                desk.answered[told] = desk.answered.get(told, 0) + 1
            await send(message)

        await app(scope, receive, sending)

    return counting


def make_api(desk: Desk) -> FastAPI:
    """The application without its gate."""
    api = make_paths()
    api.state.desk = desk
    return api


def make_paths() -> FastAPI:
    """The paths alone, with nothing behind them."""
    api = FastAPI(
        title="Hone's job service",
        version=__version__,
        summary="The OpenAI fine-tuning API on own hardware",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={
            Refusal: _refused,
            RequestValidationError: _unreadable,
            HTTPException: _unknown,
            HoneError: _fault,
            ClientGone: _gone,
        },  # type: ignore[dict-item]
    )
    for router in _ROUTERS:
        api.include_router(router)
    return api


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _unreadable(_: Request, error: Exception) -> Response:
    """A parameter of the path or the query that is none."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    param = str(first["loc"][-1])
    said = f"{param}: {first['msg']}; found {str(first.get('input'))[:80]!r}"
    return JSONResponse(error_object(400, said, param=param, code="invalid_value"), 400)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path[:200]} is not offered here"
    told = error_object(
        error.status_code, said, code="unknown_url" if error.status_code == 404 else None
    )
    return JSONResponse(told, error.status_code, headers=error.headers)


async def _gone(_: Request, error: Exception) -> Response:
    del error
    return Response(status_code=499)  # nobody reads it


async def _fault(_: Request, error: Exception) -> Response:
    """What this machine does not allow now is no fault of the request's."""
    assert isinstance(error, HoneError)
    if isinstance(error, StoreBusy):
        told = error_object(503, "the service is busy; ask again", code="busy")
        return JSONResponse(told, 503, headers={"retry-after": "2"})
    if isinstance(error, DiskError):
        told = error_object(507, error.what, code="storage_unavailable")
        return JSONResponse(told, 507, headers={"x-should-retry": "false"})
    refusal = refusal_of(error)
    return JSONResponse(refusal.body, refusal.status, headers=refusal.headers)
