"""`/v1/files`: upload, list, get, content, delete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from hone.errors import nearest
from hone.service.bodies import PURPOSES, Purpose
from hone.service.desk import AtDesk, Caller
from hone.service.form import Form, read_form
from hone.service.intake import keep_file
from hone.service.wire import file_object, page
from hone.serving.refusal import Refusal

router = APIRouter(prefix="/v1/files")
_FORM_BYTES = 64 * 2**10


def largest_upload(path: str, file_bytes: int) -> int | None:
    """How large a body may be that comes to a path for uploads; None for other paths."""
    is_part = path.startswith("/v1/uploads/") and path.endswith("/parts")
    return file_bytes + _FORM_BYTES if path == "/v1/files" or is_part else None


@router.post("")
async def upload(request: Request, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """Take a file in; rows for training are checked."""
    store = desk.store
    limits = caller.limits
    length = request.headers.get("content-length", "")
    expected = max(0, int(length) - _FORM_BYTES) if length.isdecimal() else 0
    await to_thread.run_sync(store.check_room, caller, expected)
    incoming = await to_thread.run_sync(desk.vault.incoming, store.new_file(), limits.file_bytes)
    try:
        form = Form(request.headers.get("content-type", ""), "file", incoming)
        try:
            await read_form(request.stream(), form)
        except ClientDisconnect as error:
            raise Refusal(400, "the upload was broken off") from error
        purpose, expires = _purpose(form.fields), _expiry(form.fields)
        assert form.filename is not None
        file = await to_thread.run_sync(
            keep_file, desk, caller, incoming, form.filename, purpose, expires
        )
    except BaseException:
        incoming.drop()
        raise
    return file_object(file)


@router.get("")
def list_files(
    desk: AtDesk,
    caller: Caller,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> dict[str, Any]:
    """A page of the owner's files."""
    found, more = desk.store.files(
        caller.owner, after=after, limit=limit, order=order, purpose=purpose
    )
    return page([file_object(one) for one in found], more)


@router.get("/{file_id}")
def retrieve(file_id: str, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """One file."""
    return file_object(desk.store.file(file_id, caller.owner))


@router.get("/{file_id}/content", response_class=StreamingResponse)
def content(file_id: str, desk: AtDesk, caller: Caller) -> StreamingResponse:
    """A file's bytes."""
    file = desk.store.file(file_id, caller.owner)
    return _download(desk.vault.path(file.id), file.filename)


@router.get("/{file_id}/x_hone/errors", response_class=StreamingResponse)
def errors(file_id: str, desk: AtDesk, caller: Caller) -> StreamingResponse:
    """Everything that is wrong with a file's rows: line, pointer, what, found, allowed, remedy; a line of JSON each."""
    file = desk.store.file(file_id, caller.owner)
    return _download(desk.vault.errors_path(file.id), f"{file.id}-errors.jsonl")


@router.delete("/{file_id}")
def delete(file_id: str, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """Forget a file, unless a job needs it."""
    file = desk.store.delete_file(file_id, caller.owner)
    desk.vault.remove(file.id)
    desk.store.note(caller, "file.deleted", file.id)
    return {"id": file.id, "object": "file", "deleted": True}


def _purpose(fields: dict[str, str]) -> Purpose:
    purpose = fields.get("purpose")
    if purpose is None:
        raise Refusal(
            400, "purpose: it is required", param="purpose", code="missing_required_parameter"
        )
    if purpose not in get_args(Purpose):
        raise Refusal(
            400, f"purpose: {nearest(purpose, PURPOSES)}", param="purpose", code="invalid_value"
        )
    unknown = fields.keys() - {"purpose", "expires_after[anchor]", "expires_after[seconds]"}
    if unknown:
        raise Refusal(
            400, f"{min(unknown)[:80]}: there is no such field", param=min(unknown)[:80], code="unknown_parameter"
        )  # fmt: skip
    return cast("Purpose", purpose)


def _expiry(fields: dict[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise Refusal(
            400, "expires_after[anchor]: it is 'created_at'", param="expires_after.anchor"
        )
    if seconds is None or not seconds.isdecimal() or not 3600 <= int(seconds[:9]) <= 2_592_000:
        raise Refusal(
            400, "expires_after[seconds]: a whole number from 3600 to 2592000", param="expires_after.seconds"
        )  # fmt: skip
    return int(seconds)


def _download(path: Path, name: str) -> StreamingResponse:
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise Refusal(404, "there is nothing to download", param="file_id") from error
    size = path.stat().st_size

    def blocks() -> Iterator[bytes]:
        with stream:
            while block := stream.read(2**18):
                yield block

    plain = "".join(
        one if one.isascii() and (one.isalnum() or one in "._- ") else "_" for one in name
    )
    headers = {
        "content-length": str(size),
        "content-disposition": f'attachment; filename="{plain}"',
    }
    return StreamingResponse(blocks(), media_type="application/octet-stream", headers=headers)
