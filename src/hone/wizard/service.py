"""What the job service of the environment offers, asked once and for a moment only. It knows no question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from hone.backends.job_api import JobApi, listed
from hone.backends.service_address import KEY_VARIABLE, ServiceAddress, find_service
from hone.errors import HoneError

_PATIENCE_SECONDS: Final = 3.0
_MOST_MODELS: Final = 20


@dataclass(frozen=True)
class Offer:
    """A service, and its base models; `models` is None where it does not answer, or not to this key."""

    url: str
    models: tuple[str, ...] | None


def offer_of(environment: Mapping[str, str]) -> Offer | None:
    """The service that a script would train on from here; None where there is no key for one."""
    if not environment.get(KEY_VARIABLE):
        return None
    try:
        return _asked(find_service(None, None, environment))
    except HoneError:
        return None


@lru_cache(maxsize=8)
def _asked(address: ServiceAddress) -> Offer:
    try:
        api = JobApi(address, timeout_seconds=_PATIENCE_SECONDS)
        try:
            found = [str(one.get("id")) for one in listed(api.get("/models"))]
        finally:
            api.close()
    except HoneError:
        return Offer(address.url, None)
    bases = [name for name in found if not name.startswith("ft:") and "@" not in name]
    return Offer(address.url, tuple(bases[:_MOST_MODELS]))
