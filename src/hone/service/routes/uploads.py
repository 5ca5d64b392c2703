"""`/v1/uploads`: a file that comes in parts."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from hone.service.bodies import CompleteUpload, CreateUpload, read_body
from hone.service.desk import AtDesk, Caller, Desk
from hone.service.form import Form, read_form
from hone.service.intake import keep_file
from hone.service.records import Key, StoredFile, Upload
from hone.service.wire import part_object, upload_object
from hone.serving.refusal import Refusal

router = APIRouter(prefix="/v1/uploads")
_PART_BYTES = 64 * 2**20


@router.post("")
async def create(request: Request, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """Begin an upload of so many bytes."""
    body = await read_body(request, CreateUpload)

    def begin() -> Upload:
        desk.store.check_room(caller, body.bytes)
        expires = body.expires_after.seconds if body.expires_after else None
        return desk.store.add_upload(
            caller.owner,
            filename=body.filename,
            purpose=body.purpose,
            mime_type=body.mime_type,
            bytes=body.bytes,
            file_expires_s=expires,
        )

    return upload_object(await to_thread.run_sync(begin))


@router.post("/{upload_id}/parts")
async def add_part(
    upload_id: str, request: Request, desk: AtDesk, caller: Caller
) -> dict[str, Any]:
    """Take one part in; parts may come side by side."""
    upload = await to_thread.run_sync(desk.store.upload, upload_id, caller.owner)
    part = desk.store.new_part()
    most = min(_PART_BYTES, upload.bytes)
    incoming = await to_thread.run_sync(desk.vault.incoming_part, upload.id, part, most)
    try:
        form = Form(request.headers.get("content-type", ""), "data", incoming)
        try:
            await read_form(request.stream(), form)
        except ClientDisconnect as error:
            raise Refusal(400, "the part was broken off") from error
        if form.fields:
            name = min(form.fields)[:80]
            raise Refusal(400, f"{name}: there is no such field", param=name)
        await to_thread.run_sync(incoming.keep)
        made = await to_thread.run_sync(
            desk.store.add_part, upload.id, caller.owner, part, incoming.bytes
        )
    except BaseException:
        incoming.drop()
        raise
    return part_object(made)


@router.post("/{upload_id}/complete")
async def complete(
    upload_id: str, request: Request, desk: AtDesk, caller: Caller
) -> dict[str, Any]:
    """Make one file of the parts, in the order that is given."""
    body = await read_body(request, CompleteUpload)
    async with desk.turn(f"{caller.owner} {upload_id}"):
        upload, file = await to_thread.run_sync(_complete, desk, caller, upload_id, body)
    return upload_object(upload, file)


@router.post("/{upload_id}/cancel")
def cancel(upload_id: str, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """Forget an upload and its parts."""
    upload = desk.store.end_upload(upload_id, caller.owner, "cancelled")
    desk.vault.remove_upload(upload.id)
    return upload_object(upload)


def _complete(
    desk: Desk, caller: Key, upload_id: str, body: CompleteUpload
) -> tuple[Upload, StoredFile]:
    upload = desk.store.upload(upload_id, caller.owner)
    if upload.status == "completed" and upload.file is not None:  # a repeated request
        return upload, desk.store.file(upload.file, caller.owner)
    known = {part.id: part.bytes for part in desk.store.parts(upload.id)}
    strangers = [part for part in body.part_ids if part not in known]
    if strangers or len(set(body.part_ids)) != len(body.part_ids):
        said = (
            f"{strangers[0][:80]!r} is no part of it" if strangers else "a part stands in it twice"
        )
        raise Refusal(400, f"part_ids: {said}", param="part_ids")
    total = sum(known[part] for part in body.part_ids)
    if total != upload.bytes:
        raise Refusal(
            400,
            f"the parts have {total:,} bytes together; the upload was begun for {upload.bytes:,}",
            param="part_ids",
        )
    made = desk.vault.join(upload.id, body.part_ids, desk.store.new_file(), upload.bytes)
    try:
        if body.md5 is not None and body.md5.lower() != made.md5:
            raise Refusal(400, f"md5: the file that came has {made.md5}", param="md5")
        file = keep_file(desk, caller, made, upload.filename, upload.purpose, upload.file_expires_s)
    except BaseException:
        made.drop()
        raise
    ended = desk.store.end_upload(upload.id, caller.owner, "completed", file.id)
    desk.vault.remove_upload(upload.id)
    return ended, file
