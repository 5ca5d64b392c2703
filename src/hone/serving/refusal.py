"""What a client did that cannot be answered: status and error object of the OpenAI API. It knows no HTTP library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hone.errors import ConfigError, DataError, HoneError
from hone.infer.writer import Crowded, UnknownModel

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Refusal(Exception):
    """A request that is not answered, with the HTTP status that says so."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        return error_object(self.status, str(self), param=self.param, code=self.code)


def error_object(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """`{"error": {message, type, param, code}}`."""
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    kind = _TYPES.get(status, fallback)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refusal_of(error: HoneError, *, param: str | None = None) -> Refusal:
    """How an error of ours is told to a client; paths and inner workings stay here."""
    said = error.what if error.remedy is None else f"{error.what} ({error.remedy})"
    if isinstance(error, UnknownModel):
        return Refusal(404, said, param="model", code="model_not_found")
    if isinstance(error, Crowded):
        seconds = str(max(1, round(error.retry_after_s)))
        headers = {"retry-after": seconds}
        return Refusal(429, said, code="rate_limit_exceeded", headers=headers)
    if isinstance(error, ConfigError | DataError):
        return Refusal(400, said, param=param)
    return Refusal(500, error.what)
