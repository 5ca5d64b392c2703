"""A file that has come whole is made durable, then known, then checked where it is small."""

from __future__ import annotations

from hone.service.checking import check_file
from hone.service.desk import Desk
from hone.service.form import shown_name
from hone.service.records import Key, StoredFile
from hone.service.vault import Incoming
from hone.serving.refusal import Refusal


def keep_file(
    desk: Desk,
    caller: Key,
    incoming: Incoming,
    filename: str,
    purpose: str,
    expires_after_s: int | None,
) -> StoredFile:
    """The file, known to the store. Raises Refusal where it is empty or beyond the owner's quotas.

    Whoever calls drops `incoming` where this raises.
    """
    if incoming.bytes == 0:
        raise Refusal(400, "the file is empty", param="file", code="empty_file")
    incoming.keep()
    file = desk.store.add_file(
        caller.owner,
        id=incoming.id,
        purpose=purpose,
        filename=shown_name(filename),
        bytes=incoming.bytes,
        sha256=incoming.sha256,
        status="uploaded" if purpose == "fine-tune" else "processed",
        expires_after_s=expires_after_s,
        key=caller,
    )
    desk.store.note(caller, "file.created", file.id, f"{file.bytes} bytes, {purpose}")
    if purpose == "fine-tune":
        if incoming.bytes <= desk.operator.checking_bytes:
            check_file(desk.store, desk.vault, file, caller.limits.file_rows)
        else:
            desk.wake.set()
    return desk.store.file(file.id, caller.owner)
