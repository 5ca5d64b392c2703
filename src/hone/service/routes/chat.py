"""`/v1/chat/completions`: passed on to the server that has the model's base, streams as they come."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any, Final, cast

import httpx2
from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from hone.service.bodies import read_json
from hone.service.desk import AtDesk, Caller, Desk
from hone.service.names import calling
from hone.service.records import Key
from hone.service.speakers import Voice
from hone.serving.app import while_listening
from hone.serving.refusal import Refusal

router = APIRouter(prefix="/v1/chat")

_WAIT: Final = httpx2.Timeout(600.0, connect=5.0)
_PASSED: Final = ("content-type", "retry-after", "x-should-retry")


@router.post("/completions")
async def complete(request: Request, desk: AtDesk, caller: Caller) -> Response:
    """Ask a base model, a tuned one, a checkpoint, or a trainable one."""
    body: Any = await read_json(request)
    name = cast("dict[str, Any]", body).get("model") if isinstance(body, dict) else None
    if not isinstance(name, str):
        raise Refusal(400, "model: a name is wanted", param="model", code="invalid_value")
    base, inner = await to_thread.run_sync(find, desk, caller, name)
    async with AsyncExitStack() as stack:
        voice = await stack.enter_async_context(desk.speakers.voice(base))
        client = await stack.enter_async_context(httpx2.AsyncClient(timeout=_WAIT, trust_env=False))
        asked = client.build_request(
            "POST",
            f"{voice.base_url}/chat/completions",
            content=json.dumps({**body, "model": inner}, allow_nan=False),
            headers={"authorization": f"Bearer {voice.key}", "content-type": "application/json"},
        )
        answer = await while_listening(_sent(client, asked, voice), request.receive)
        stack.push_async_callback(answer.aclose)
        headers = {key: answer.headers[key] for key in _PASSED if key in answer.headers}
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            kept = stack.pop_all()
            told = _stream(answer, kept, inner, name)
            return StreamingResponse(told, answer.status_code, headers=headers)
        whole = await while_listening(answer.aread(), request.receive)
        return Response(renamed(whole, inner, name), answer.status_code, headers=headers)


def find(desk: Desk, caller: Key, name: str) -> tuple[str, str]:
    """The base behind a name, and the name by which its server knows it. Raises Refusal 404."""
    if name in desk.operator.models:
        return name, name
    model = desk.store.model(name, caller.owner)
    if model is not None:
        if model.base not in desk.operator.models:
            raise Refusal(
                404, f"this service no longer has {model.base!r}, the base of {name!r}", param="model", code="model_not_found"
            )  # fmt: skip
        return model.base, name
    stem, _, step = name.partition("@")
    found = [
        one
        for one in desk.store.trainables(caller.owner)
        if stem in (one.name, f"{one.project}/{one.name}")
    ]
    if len(found) > 1:
        raise Refusal(
            400,
            f"several projects have a model {stem!r}; write PROJECT/{stem}",
            param="model",
            code="model_ambiguous",
        )
    if not found or (step and not step.isdecimal()):
        raise Refusal(
            404,
            f"no model {name[:120]!r} is here; GET /v1/models lists what is",
            param="model",
            code="model_not_found",
        )
    one = found[0]
    inner = calling(caller.owner, one.project, one.name)
    return one.base, f"{inner}@{step}" if step else f"{inner}@{one.step}"


def renamed(data: bytes, inner: str, name: str) -> bytes:
    """An answer under the name that the client used. Within texts a quote is escaped: only the key can be meant."""
    if inner == name:
        return data
    for space in (b" ", b""):
        before = b'"model":' + space + json.dumps(inner, ensure_ascii=False).encode()
        data = data.replace(before, b'"model":' + space + json.dumps(name).encode())
    return data


async def _sent(client: httpx2.AsyncClient, asked: httpx2.Request, voice: Voice) -> httpx2.Response:
    del voice
    try:
        return await client.send(asked, stream=True)
    except httpx2.TransportError as error:
        raise Refusal(
            503, "the model's server went away; ask again", code="model_unavailable", headers={"retry-after": "2"}
        ) from error  # fmt: skip


async def _stream(
    answer: httpx2.Response, kept: AsyncExitStack, inner: str, name: str
) -> AsyncGenerator[bytes]:
    async with kept:
        try:
            async for line in answer.aiter_lines():
                yield renamed(line.encode(), inner, name) + b"\n"
        except httpx2.TransportError:
            told = {"message": "the model's server went away", "type": "server_error"}
            yield (
                b"data: "
                + json.dumps({"error": {**told, "param": None, "code": None}}).encode()
                + b"\n\n"
            )
