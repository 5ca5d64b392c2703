"""Webhooks: whoever the operator named hears of the end of each job, signed as the official client verifies."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from hone.errors import ConfigError
from hone.service.records import Hook
from hone.service.store import Store

_PREFIX: Final = "whsec_"
_TIMEOUT_S: Final = 10.0


class Hooks:
    """Sends what is owed to the operator's addresses. Redirects are not followed, and no proxy is asked."""

    def __init__(self, store: Store, addresses: Sequence[str], secret: str) -> None:
        """Raises ConfigError where an address or the secret is none."""
        for address in addresses:
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                raise ConfigError(
                    f"--webhook {address!r} is no address",
                    remedy="write https://HOST/PATH, without a user",
                )
        self._store = store
        self._addresses = addresses
        self._key = _decoded(secret)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _NoRedirect(), urllib.request.HTTPErrorProcessor()
        )

    def send(self) -> int:
        """Send what is due; how many arrived. One that does not arrive is tried again later."""
        arrived = 0
        for hook in self._store.due_hooks():
            said = [self._one(hook, address) for address in self._addresses]
            failed = [one for one in said if one is not None]
            self._store.sent_hook(hook, arrived=not failed, said="; ".join(failed))
            arrived += not failed
        return arrived

    def _one(self, hook: Hook, address: str) -> str | None:
        """Tell one address; why it did not hear, None where it did."""
        body = json.dumps(
            {
                "id": hook.id,
                "object": "event",
                "type": hook.type,
                "created_at": hook.created,
                "data": {"id": hook.job},
            }
        ).encode()
        request = urllib.request.Request(address, data=body, headers=self.headers(hook.id, body))  # noqa: S310 - checked above
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                answer.read(1024)
            return None
        except urllib.error.HTTPError as error:
            return f"{urlsplit(address).hostname}: status {error.code}"
        except (OSError, ValueError) as error:
            return f"{urlsplit(address).hostname}: {error}"

    def headers(self, name: str, body: bytes) -> dict[str, str]:
        """The headers of a message, its signature among them."""
        at = str(int(time.time()))
        signed = f"{name}.{at}.".encode() + body
        digest = base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
        return {
            "content-type": "application/json",
            "user-agent": "hone-service",
            "webhook-id": name,
            "webhook-timestamp": at,
            "webhook-signature": f"v1,{digest}",
        }


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Never: the operator named this address, and no other."""
        return


def hook_secret(root: Path, given: str | None) -> str:
    """The secret of webhooks: the operator's, else one that is made once and lies in the service's folder."""
    if given:
        _decoded(given)
        return given
    path = root / "secret"
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        made = _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as stream:
            stream.write(made + "\n")
        return made


def _decoded(secret: str) -> bytes:
    try:
        if secret.startswith(_PREFIX):
            return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        pass
    else:
        if len(secret) >= 24:
            return secret.encode()
    raise ConfigError(
        "HONE_WEBHOOK_SECRET is no secret of webhooks",
        remedy="write whsec_ and 32 random bytes in base64, or unset it: one is made then",
    )
