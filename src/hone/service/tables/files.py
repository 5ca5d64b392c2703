"""Files and uploads in parts: their records, who owns them, what an owner may keep. The bytes are another's affair."""

from __future__ import annotations

import sqlite3
from typing import Any, Final, Literal

from hone.service.names import FILE, PART, UPLOAD, new_id
from hone.service.records import Key, Part, StoredFile, Upload
from hone.service.tables.database import Database, insert, rows, update
from hone.serving.refusal import Refusal

Order = Literal["asc", "desc"]
_UPLOAD_LIFE_S: Final = 3600
_LIVE: Final = "status NOT IN ('succeeded', 'failed', 'cancelled')"


class Files(Database):
    """The files of a store."""

    def add_file(
        self,
        owner: str,
        *,
        id: str,  # noqa: A002 - the wire's word
        purpose: str,
        filename: str,
        bytes: int,  # noqa: A002
        sha256: str,
        status: str = "processed",
        rows: int | None = None,
        expires_after_s: int | None = None,
        key: Key | None = None,
    ) -> StoredFile:
        """Make a file known whose bytes lie in their place. Raises Refusal where the key's quota is reached."""
        with self.writing() as connection:
            if key is not None:
                _check_room(connection, key, bytes)
            created = self.now()
            values = {
                "id": id, "owner": owner, "purpose": purpose, "filename": filename, "bytes": bytes, "sha256": sha256,
                "status": status, "rows": rows, "created": created,
                "expires_at": None if expires_after_s is None else created + expires_after_s,
            }  # fmt: skip
            insert(connection, "files", values)
            return _file(connection, id, owner)

    def file(self, id: str, owner: str) -> StoredFile:  # noqa: A002
        """One file. Raises Refusal 404 where it is not there, or another's."""
        with self.reading() as connection:
            return _file(connection, id, owner)

    def files(
        self,
        owner: str,
        *,
        after: str | None = None,
        limit: int = 10_000,
        order: Order = "desc",
        purpose: str | None = None,
    ) -> tuple[list[StoredFile], bool]:
        """A page of files, and whether there is more."""
        words, of = "owner = ?", [owner]
        with self.reading() as connection:
            if after is not None:
                anchor = _file(connection, after, owner, param="after")
                words += " AND seq < ?" if order == "desc" else " AND seq > ?"
                of.append(anchor.seq)  # type: ignore[arg-type]
            if purpose is not None:
                words += " AND purpose = ?"
                of.append(purpose)
            asked = f"SELECT * FROM files WHERE {words} ORDER BY seq {'DESC' if order == 'desc' else 'ASC'} LIMIT ?"  # noqa: S608
            found = [StoredFile.of(row) for row in rows(connection, asked, [*of, limit + 1])]
        return found[:limit], len(found) > limit

    def delete_file(self, id: str, owner: str) -> StoredFile:  # noqa: A002
        """Forget a file; what it was. Raises Refusal while a job needs it."""
        with self.writing() as connection:
            file = _file(connection, id, owner)
            words = f"SELECT id FROM jobs WHERE (training_file = ?1 OR validation_file = ?1) AND {_LIVE} LIMIT 1"  # noqa: S608
            user = connection.execute(words, (id,)).fetchone()
            if user is not None:
                raise Refusal(
                    400,
                    f"{id} is used by {user['id']}, which has not ended; cancel the job, or wait for its end",
                    param="file_id",
                    code="file_in_use",
                )
            connection.execute("DELETE FROM files WHERE id = ?", (id,))
            return file

    def judge_file(self, id: str, status: str, rows: int | None, details: str | None) -> None:  # noqa: A002
        """Keep what checking a file came to."""
        with self.writing() as connection:
            values = {"status": status, "rows": rows, "details": details}
            update(connection, "files", values, "id = ? AND status = 'uploaded'", id)

    def unchecked_files(self, limit: int = 100) -> list[StoredFile]:
        """Files that wait to be checked, oldest first."""
        words = "SELECT * FROM files WHERE status = 'uploaded' ORDER BY seq LIMIT ?"
        with self.reading() as connection:
            return [StoredFile.of(row) for row in rows(connection, words, (limit,))]

    def expired_files(self) -> list[StoredFile]:
        """Files whose time is over and that no job needs."""
        used = (
            f"SELECT 1 FROM jobs WHERE (training_file = f.id OR validation_file = f.id) AND {_LIVE}"  # noqa: S608
        )
        words = f"SELECT * FROM files f WHERE expires_at <= ? AND NOT EXISTS ({used})"  # noqa: S608
        with self.reading() as connection:
            return [StoredFile.of(row) for row in rows(connection, words, (self.now(),))]

    def has_file(self, id: str) -> bool:  # noqa: A002
        """Whether a file of that id is known, whosever it is."""
        with self.reading() as connection:
            words = "SELECT 1 FROM files WHERE id = ?"
            return connection.execute(words, (id,)).fetchone() is not None

    def check_room(self, key: Key, more_bytes: int) -> None:
        """Raise Refusal where a file of that size would go beyond the owner's quotas."""
        with self.reading() as connection:
            _check_room(connection, key, more_bytes)

    def add_upload(
        self,
        owner: str,
        *,
        filename: str,
        purpose: str,
        mime_type: str,
        bytes: int,  # noqa: A002
        file_expires_s: int | None = None,
    ) -> Upload:
        """A file that will come in parts."""
        created = self.now()
        values = {
            "id": new_id(UPLOAD), "owner": owner, "filename": filename, "purpose": purpose, "mime_type": mime_type,
            "bytes": bytes, "status": "pending", "created": created, "expires_at": created + _UPLOAD_LIFE_S,
            "file_expires_s": file_expires_s,
        }  # fmt: skip
        with self.writing() as connection:
            insert(connection, "uploads", values)
            return _upload(connection, str(values["id"]), owner)

    def upload(self, id: str, owner: str) -> Upload:  # noqa: A002
        """One upload. Raises Refusal 404."""
        with self.reading() as connection:
            return _upload(connection, id, owner)

    def new_part(self) -> str:
        """The id that a part will have; its bytes are written before it is made known."""
        return new_id(PART)

    def new_file(self) -> str:
        """The id that a file will have; its bytes are written before it is made known."""
        return new_id(FILE)

    def add_part(self, upload: str, owner: str, part: str, bytes: int) -> Part:  # noqa: A002
        """Make a part known. Raises Refusal where the upload takes no more."""
        with self.writing() as connection:
            found = _pending(_upload(connection, upload, owner))
            words = "SELECT coalesce(sum(bytes), 0) FROM parts WHERE upload = ?"
            before = int(connection.execute(words, (upload,)).fetchone()[0])
            if before + bytes > found.bytes:
                raise Refusal(
                    400,
                    f"the parts have {before + bytes:,} bytes together; the upload was begun for {found.bytes:,}",
                    param="data",
                )
            values = {"id": part, "upload": upload, "bytes": bytes, "created": self.now()}
            insert(connection, "parts", values)
            return Part.of(
                connection.execute("SELECT * FROM parts WHERE id = ?", (part,)).fetchone()
            )

    def parts(self, upload: str) -> list[Part]:
        """The parts of an upload, in the order of their coming."""
        with self.reading() as connection:
            words = "SELECT * FROM parts WHERE upload = ? ORDER BY rowid"
            return [Part.of(row) for row in rows(connection, words, (upload,))]

    def end_upload(self, id: str, owner: str, status: str, file: str | None = None) -> Upload:  # noqa: A002
        """Complete or cancel a pending upload. Raises Refusal where it is not pending."""
        with self.writing() as connection:
            _pending(_upload(connection, id, owner))
            update(connection, "uploads", {"status": status, "file": file}, "id = ?", id)
            return _upload(connection, id, owner)

    def expire_uploads(self) -> list[str]:
        """End pending uploads whose time is over; their ids."""
        with self.writing() as connection:
            words = "SELECT id FROM uploads WHERE status = 'pending' AND expires_at <= ?"
            found = [str(row["id"]) for row in rows(connection, words, (self.now(),))]
            for one in found:
                update(connection, "uploads", {"status": "expired"}, "id = ?", one)
        return found


def _file(connection: Any, id: str, owner: str, param: str = "file_id") -> StoredFile:  # noqa: A002
    words = "SELECT * FROM files WHERE id = ? AND owner = ?"
    row: sqlite3.Row | None = connection.execute(words, (id, owner)).fetchone()
    if row is None:
        raise Refusal(404, f"no file {id[:80]!r} is here", param=param, code="file_not_found")
    return StoredFile.of(row)  # type: ignore[arg-type]


def _upload(connection: Any, id: str, owner: str) -> Upload:  # noqa: A002
    words = "SELECT * FROM uploads WHERE id = ? AND owner = ?"
    row = connection.execute(words, (id, owner)).fetchone()
    if row is None:
        raise Refusal(
            404, f"no upload {id[:80]!r} is here", param="upload_id", code="upload_not_found"
        )
    return Upload.of(row)


def _pending(upload: Upload) -> Upload:
    if upload.status != "pending":
        raise Refusal(
            400, f"{upload.id} is {upload.status}; begin a new upload", param="upload_id", code="upload_not_pending"
        )  # fmt: skip
    return upload


def _check_room(connection: Any, key: Key, more_bytes: int) -> None:
    limits = key.limits
    if more_bytes > limits.file_bytes:
        raise Refusal(
            413,
            f"the file has {more_bytes:,} bytes; a file of this key may have {limits.file_bytes:,}",
            param="file",
            code="file_too_large",
        )
    words = "SELECT count(*), coalesce(sum(bytes), 0) FROM files WHERE owner = ?"
    count, total = connection.execute(words, (key.owner,)).fetchone()
    reached = None
    if limits.files is not None and count >= limits.files:
        reached = f"{count:,} files are kept, as many as this key may"
    elif limits.disk_bytes is not None and total + more_bytes > limits.disk_bytes:
        reached = f"with {more_bytes:,} bytes more there would be {total + more_bytes:,}; this key may keep {limits.disk_bytes:,}"
    if reached:
        raise Refusal(
            403, f"{reached}; delete files, or ask the operator for more", param="file", code="quota_exceeded"
        )  # fmt: skip
