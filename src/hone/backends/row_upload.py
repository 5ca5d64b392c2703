"""Sends a file of rows to a service: whole where it is small, else in parts, each of which may be sent again."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import IO, Final

from hone.backends.job_api import Answer, JobApi, persist
from hone.errors import RemoteError

PART_BYTES: Final = 16 * 2**20
WHOLE_BYTES: Final = 64 * 2**20
"""The largest file that goes in one request."""
PURPOSE: Final = "fine-tune"


def send_rows(
    api: JobApi,
    file: IO[bytes],
    name: str,
    *,
    size: int,
    patience_seconds: float,
    say: Callable[[str], object],
    stop: threading.Event | None = None,
    expires_seconds: int | None = None,
    part_bytes: int = PART_BYTES,
    whole_bytes: int = WHOLE_BYTES,
) -> str:
    """Upload `size` bytes of rows; the file's id. Memory: one part. Over a lost connection it goes on.

    An answer that is lost leaves a file at the service that nobody asks for; `expires_seconds` bounds its life.
    """

    def send() -> Answer:
        if size <= whole_bytes:
            return api.send_file(file, name, PURPOSE, expires_seconds=expires_seconds)
        return _in_parts(
            api, file, name, size, patience_seconds, say, stop, expires_seconds, part_bytes
        )

    told = persist(send, patience_seconds=patience_seconds, say=say, stop=stop)
    if not told.get("id"):
        raise RemoteError("the service took the rows and named no file", where=api.address.url)
    return str(told["id"])


def _in_parts(
    api: JobApi,
    file: IO[bytes],
    name: str,
    size: int,
    patience_seconds: float,
    say: Callable[[str], object],
    stop: threading.Event | None,
    expires_seconds: int | None,
    part_bytes: int,
) -> Answer:
    body: Answer = {
        "bytes": size,
        "filename": name,
        "mime_type": "application/jsonl",
        "purpose": PURPOSE,
    }
    if expires_seconds is not None:
        body["expires_after"] = {"anchor": "created_at", "seconds": expires_seconds}
    upload = str(api.post("/uploads", body)["id"])
    file.seek(0)
    sent: list[str] = []
    digest = hashlib.md5(usedforsecurity=False)  # what the API compares the whole by
    while content := file.read(part_bytes):
        digest.update(content)
        sent.append(
            persist(
                lambda part=content: api.send_part(upload, part),
                patience_seconds=patience_seconds,
                say=say,
                stop=stop,
            )
        )
    told = api.post(f"/uploads/{upload}/complete", {"part_ids": sent, "md5": digest.hexdigest()})
    return told.get("file") or {}
