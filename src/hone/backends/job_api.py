"""The API of fine-tuning jobs as a client sees it: any server that speaks it, through the official openai package.

Answers are plain objects of JSON. What fails is told in our words; what may pass by itself is `Unreachable`.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final, TypeVar, cast
from urllib.parse import quote

from hone.backends.service_address import ServiceAddress
from hone.errors import ConfigError, EnvironmentFault, HoneError, RemoteError

Answer = dict[str, Any]
_T = TypeVar("_T")

_TIMEOUT_SECONDS: Final = 120.0  # without a byte
_CONNECT_SECONDS: Final = 5.0
_TOO_MANY: Final = 429
_PASSING: Final = frozenset({408, 409, _TOO_MANY})
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_NO_MONEY: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_REASON_CHARACTERS: Final = 2000


class Unreachable(RemoteError):
    """The service did not answer, or said that it cannot now: the same request may do later."""

    wait_seconds: float = 0.0
    """What it asks for before the next one."""


class JobApi:
    """A client of one service. Safe to call from several threads; redirects are not followed."""

    def __init__(
        self, address: ServiceAddress, *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        """`timeout_seconds` bounds one request. Raises EnvironmentFault without the package openai."""
        try:
            from openai import DefaultHttpxClient, OpenAI, Timeout
        except ImportError as error:
            raise EnvironmentFault(
                "a service is spoken to through the package openai, which is not installed",
                remedy="pip install openai",
            ) from error
        self.address = address
        limit = Timeout(timeout_seconds, connect=min(timeout_seconds, _CONNECT_SECONDS))
        web = DefaultHttpxClient(
            follow_redirects=False,
            trust_env=not address.is_loopback,  # no proxy stands between this machine and itself
            timeout=limit,
        )
        self._client = OpenAI(
            api_key=address.key,
            base_url=address.url,
            max_retries=0,  # `persist` tries again, and says so
            http_client=web,
            timeout=limit,
        )
        if "openai.com" not in address.url:  # read from the environment, and no stranger's business
            self._client.organization = self._client.project = None

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Answer:
        """What lies at a path; parameters that are None are left out."""
        told = {key: value for key, value in (query or {}).items() if value is not None}
        return self._ask(lambda: self._client.get(path, cast_to=object, options={"params": told}))

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, retries: int = 0) -> Answer:
        """Send an object, or nothing at all. `retries` are counted in a header, by which a service knows them."""
        client = self._client.with_options(max_retries=retries) if retries else self._client
        said = None if body is None else dict(body)
        return self._ask(lambda: client.post(path, cast_to=object, body=said))

    def create_job(self, body: Mapping[str, Any], name: str) -> Answer:
        """Ask for a job. `name` is the request's own: a service that knows it makes one job of several attempts."""
        options = cast(Any, {"headers": {"Idempotency-Key": name}})
        client = self._client.with_options(max_retries=2)
        return self._ask(
            lambda: client.post(
                "/fine_tuning/jobs", cast_to=object, body=dict(body), options=options
            )
        )

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Let go of what lies at a path."""
        return self._ask(
            lambda: self._client.delete(
                path, cast_to=object, body=None if body is None else dict(body)
            )
        )

    def send_file(
        self, file: IO[bytes], name: str, purpose: str, *, expires_seconds: int | None = None
    ) -> Answer:
        """Upload a file in one request, streamed; it is read from its beginning."""
        more: Answer = {}
        if expires_seconds is not None:
            more["expires_after"] = {"anchor": "created_at", "seconds": expires_seconds}

        def send() -> object:
            file.seek(0)
            asked = cast(Any, self._client.files.create)
            return asked(file=(name, file), purpose=purpose, **more)

        return self._ask(send)

    def send_part(self, upload: str, content: bytes) -> str:
        """Upload a part; its id."""
        asked = cast(Any, self._client.uploads.parts.create)
        return str(self._ask(lambda: asked(upload, data=content))["id"])

    def file_content(self, file: str) -> bytes:
        """The bytes of a file."""
        told: Answer = self._ask(lambda: {"": self._client.files.content(file).content})
        return cast(bytes, told[""])

    def job(self, job: str) -> Answer:
        """A job as it stands."""
        return self.get(job_path(job))

    def jobs(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Answer:
        """A page of jobs, the newest first."""
        found: dict[str, object] = {
            f"metadata[{key}]": value for key, value in (metadata or {}).items()
        }
        return self.get("/fine_tuning/jobs", {"after": after, "limit": limit, **found})

    def events(self, job: str, *, after: str | None, limit: int) -> Answer:
        """A page of a job's events, the newest first."""
        return self.get(f"{job_path(job)}/events", {"after": after, "limit": limit})

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, work: Callable[[], object]) -> Answer:
        from openai import APIConnectionError, APIStatusError, OpenAIError

        try:
            told = work()
        except APIStatusError as error:
            raise self._refused(error.status_code, error.body, error.response.headers) from None
        except APIConnectionError as error:
            cause = error.__cause__ or error
            raise Unreachable(
                f"the service does not answer: {self._clean(f'{type(cause).__name__}: {cause}')}",
                where=self.address.url,
                remedy="is it running? `hone service` starts one on this machine; HONE_BASE_URL says where it is",
            ) from None
        except OpenAIError as error:
            raise RemoteError(self._clean(str(error)), where=self.address.url) from None
        if told is None or told == "":
            return {}
        dump = getattr(told, "model_dump", None)
        if dump is not None:
            told = dump()
        if not isinstance(told, dict):
            raise RemoteError(
                f"the service answered with something that is no object: {self._clean(str(told))[:80]!r}",
                where=self.address.url,
                remedy="check the address: it ends with /v1",
            )
        return cast(Answer, told)

    def _refused(self, status: int, body: object, headers: Mapping[str, str]) -> HoneError:
        """A refusal in our words. A body without an error's words is no answer of this API."""
        said: Mapping[str, Any] = {}
        if isinstance(body, Mapping):
            said = cast("Mapping[str, Any]", body)
        message = self._clean(str(said.get("message") or f"HTTP status {status}"))
        code, param = said.get("code"), said.get("param")
        where = self.address.url if not param else f"{self.address.url} {param}"
        passes = status in _PASSING or status >= 500
        if code not in _NO_MONEY and headers.get("x-should-retry", str(passes).lower()) == "true":
            later = Unreachable(
                f"the service cannot now: {message}", where=where, remedy="try later"
            )
            later.wait_seconds = _seconds(headers.get("retry-after"))
            return later
        if status == 401:
            return EnvironmentFault(
                f"the service does not accept the key: {message}",
                where=where,
                remedy="set HONE_API_KEY to a key of it",
            )
        if status in (402, 403, _TOO_MANY):
            return EnvironmentFault(f"the service does not allow this: {message}", where=where)
        if 400 <= status < 500:
            return ConfigError(f"the service refused: {message}", where=where)
        return RemoteError(f"the service failed: {message}", where=where)

    def _clean(self, text: str) -> str:
        return text.replace(self.address.key, "***")[:_REASON_CHARACTERS]


def job_path(job: str) -> str:
    """Where a job lies; an id from elsewhere cannot leave that place."""
    return f"/fine_tuning/jobs/{quote(job, safe='')}"


def persist(
    work: Callable[[], _T],
    *,
    patience_seconds: float,
    say: Callable[[str], object],
    stop: threading.Event | None = None,
) -> _T:
    """What `work` returns, tried again with growing waits while the service is Unreachable.

    It says when the connection is lost and when it is there again, and gives up after `patience_seconds` of
    silence, at once when `stop` is set. `work` must be safe to do twice.
    """
    began: float | None = None
    wait = _FIRST_WAIT
    while True:
        try:
            done = work()
        except Unreachable as error:
            now = time.monotonic()
            if began is None:
                began = now
                say(f"{error.what}; trying again")
            if now - began > patience_seconds or (stop is not None and stop.is_set()):
                raise
            pause = max(wait * random.uniform(0.8, 1.2), min(error.wait_seconds, patience_seconds))
            wait = min(_LONGEST_WAIT, wait * 2)
            if stop is None:
                time.sleep(pause)
            else:
                stop.wait(pause)
        else:
            if began is not None:
                say("the service answers again")
            return done


def _seconds(said: str | None) -> float:
    """What a Retry-After header asks for; a date, and what is neither, asks for nothing."""
    try:
        seconds = float(said or 0)
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < math.inf else 0.0


def listed(page: Answer) -> Sequence[Answer]:
    """The items of a page."""
    return cast("list[Answer]", page.get("data") or [])
