"""Where a job service is and which key opens it: from a call, else from the environment. It opens no connection."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from hone.errors import ConfigError, EnvironmentFault

URL_VARIABLE: Final = "HONE_BASE_URL"
KEY_VARIABLE: Final = "HONE_API_KEY"
DEFAULT_PORT: Final = 8500
"""Where `hone service` listens when nobody says."""
DEFAULT_URL: Final = f"http://127.0.0.1:{DEFAULT_PORT}/v1"
_THEIRS: Final = "WANDB_API_KEY"


@dataclass(frozen=True)
class ServiceAddress:
    """A service's address, which ends with its version (`/v1`), and the key for it."""

    url: str
    key: str = field(repr=False)

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def is_open(self) -> bool:
        """Whether the key would travel to another machine unencrypted."""
        return urlsplit(self.url).scheme == "http" and not self.is_loopback


def find_service(
    base_url: str | None,
    api_key: str | None,
    environment: Mapping[str, str],
    *,
    key_variable: str = KEY_VARIABLE,
) -> ServiceAddress:
    """What is said, else HONE_BASE_URL and the key in `key_variable`, else this machine's `hone service`.

    Raises ConfigError for an address that is none, EnvironmentFault where there is no key.
    """
    url = _checked(base_url or environment.get(URL_VARIABLE) or DEFAULT_URL)
    key = (api_key or environment.get(key_variable) or "").strip()
    if not key:
        raise _no_key(url, key_variable, environment)
    if not (key.isascii() and key.isprintable()) or " " in key:
        place = "api_key" if api_key else key_variable
        raise ConfigError(f"{place} holds characters that no key has", remedy="copy it again")
    return ServiceAddress(url, key)


def _checked(url: str) -> str:
    """The address without a slash at its end; `/v1` is added where no path is given."""
    said = url.strip()
    try:
        parts = urlsplit(said)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_address, parts = False, urlsplit("")
    if not is_address or any(c.isspace() for c in said):
        raise ConfigError(
            "base_url is the address of a service: http://… or https://…",
            remedy=f"e.g. {DEFAULT_URL}; say base_url or set {URL_VARIABLE}",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "base_url carries more than an address: a user, a password or a query",
            remedy=f"give the plain address; the key is read from {KEY_VARIABLE}",
        )
    bare = said.rstrip("/")
    return bare if parts.path.strip("/") else f"{bare}/v1"


def _no_key(url: str, variable: str, environment: Mapping[str, str]) -> EnvironmentFault:
    if variable == KEY_VARIABLE and environment.get(_THEIRS):
        return EnvironmentFault(
            f"{KEY_VARIABLE} is not set; {_THEIRS} is, and that opens W&B's own service, which Hone does not speak to",
            where=url,
            remedy=f"for a service of yours set {KEY_VARIABLE} (and {URL_VARIABLE}); for W&B's run the script with ART "
            "itself: pip install openpipe-art, and `hone wizard --framework art` writes it",
        )
    return EnvironmentFault(
        f"no key for the service: {variable} is not set",
        where=url,
        remedy=f"the operator makes one with `hone service keys create NAME`; then export {variable}=…",
    )
