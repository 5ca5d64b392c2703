"""Keys and their owners: made, found by what a client brings, revoked; and who did what. It knows no HTTP."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from hone.errors import ConfigError, nearest
from hone.service.names import KEY, check_owner, new_id
from hone.service.records import Key, Quotas
from hone.service.tables.database import Database, insert, rows, to_json, update

_PREFIX: Final = "sk-hone-"
_FOUND: Final = (
    "SELECT k.*, o.priority, o.max_running, o.quotas FROM keys k JOIN owners o ON o.name = k.owner"
)
_KNOWN_QUOTAS: Final = tuple(item.name for item in fields(Quotas))


class Keys(Database):
    """The keys of a store."""

    def create_key(
        self,
        owner: str,
        *,
        priority: int | None = None,
        max_running: int | None = None,
        quotas: Mapping[str, int | None] | None = None,
        is_admin: bool = False,
    ) -> tuple[Key, str]:
        """A new key of `owner`, and its text, which is kept nowhere. What is given of limits holds for the owner.

        Raises ConfigError.
        """
        check_owner(owner)
        for name, value in (quotas or {}).items():
            if name not in _KNOWN_QUOTAS:
                raise ConfigError(
                    f"no quota is called {name!r}", remedy=nearest(name, _KNOWN_QUOTAS)
                )
            if value is not None and value < 0:
                raise ConfigError(f"quota {name} is {value}", remedy="give a count from 0")
        text = _PREFIX + secrets.token_urlsafe(32)
        with self.writing() as connection:
            self._set_owner(connection, owner, priority, max_running, quotas)
            values = {
                "id": new_id(KEY),
                "owner": owner,
                "hash": _digest(text),
                "is_admin": int(is_admin),
            }
            insert(connection, "keys", {**values, "created": self.now()})
            self._note(connection, None, owner, "key.created", str(values["id"]))
        key = self.key_of(text)
        assert key is not None
        return key, text

    def key_of(self, text: str) -> Key | None:
        """The key that a client brings, None where there is none or it was revoked."""
        digest = _digest(text)
        with self.reading() as connection:
            # An index is asked for a digest, never for the text: how long it takes tells nothing of a key.
            row = connection.execute(f"{_FOUND} WHERE k.hash = ?", (digest,)).fetchone()
        if (
            row is None
            or not hmac.compare_digest(row["hash"], digest)
            or row["revoked"] is not None
        ):
            return None
        return Key.of(row)

    def list_keys(self) -> list[Key]:
        """Every key, oldest first."""
        with self.reading() as connection:
            return [Key.of(row) for row in rows(connection, f"{_FOUND} ORDER BY k.rowid")]

    def revoke_key(self, key: str) -> bool:
        """End a key's life; whether there was one alive. What was made with it stays its owner's."""
        with self.writing() as connection:
            values = {"revoked": self.now()}
            count = update(connection, "keys", values, "id = ? AND revoked IS NULL", key)
            if count:
                self._note(connection, None, None, "key.revoked", key)
        return bool(count)

    def limits_of(self, owner: str) -> Quotas:
        """An owner's quotas."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT quotas FROM owners WHERE name = ?", (owner,)
            ).fetchone()
        return Quotas() if row is None else Quotas(**json.loads(row["quotas"]))

    def note(self, key: Key | None, action: str, subject: str, detail: str = "") -> None:
        """Write into the audit log who did what to which thing."""
        with self.writing() as connection:
            ids = (None, None) if key is None else (key.id, key.owner)
            self._note(connection, *ids, action, subject, detail)

    def audit(
        self, after: int = 0, limit: int = 1000, *, key: str | None = None, since: int | None = None
    ) -> list[dict[str, Any]]:
        """The audit log from a number on, oldest first; of one key or owner, and of a time on."""
        asked = "seq > ?"
        of: list[object] = [after]
        if key is not None:
            # A key's own making and end stand there as things that were done to it.
            asked += " AND (key = ? OR owner = ? OR subject = ?)"
            of += [key] * 3
        if since is not None:
            asked += " AND at >= ?"
            of.append(since)
        with self.reading() as connection:
            words = f"SELECT * FROM audit WHERE {asked} ORDER BY seq LIMIT ?"  # noqa: S608
            return [dict(row) for row in rows(connection, words, (*of, limit))]

    def _note(
        self, connection: Any, key: str | None, owner: str | None, action: str, subject: str, detail: str = ""
    ) -> None:  # fmt: skip
        values = {"at": self.now(), "key": key, "owner": owner, "action": action}
        insert(connection, "audit", {**values, "subject": subject, "detail": detail[:1000]})

    def _set_owner(
        self,
        connection: Any,
        owner: str,
        priority: int | None,
        max_running: int | None,
        quotas: Mapping[str, int | None] | None,
    ) -> None:
        known = connection.execute("SELECT 1 FROM owners WHERE name = ?", (owner,)).fetchone()
        if known is None:
            first = {"priority": 0, "max_running": 1, "quotas": "{}", "created": self.now()}
            insert(connection, "owners", {"name": owner, **first})
        given = {
            "priority": priority,
            "max_running": max_running,
            "quotas": None if quotas is None else to_json(dict(quotas)),
        }
        values = {name: value for name, value in given.items() if value is not None}
        if values:
            update(connection, "owners", values, "name = ?", owner)


def _digest(text: str) -> bytes:
    # A key has 256 random bits: nothing slower than one digest is needed to keep it.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
