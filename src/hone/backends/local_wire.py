"""Errors as JSON, between a backend and the process that trains for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone import errors
from hone.errors import HoneError


def fault_of(error: Exception) -> dict[str, Any]:
    """An error as JSON holds it; one that is none of ours says what it is."""
    if isinstance(error, HoneError):
        kind = type(error).__name__
        return {"kind": kind, "what": error.what, "where": error.where, "remedy": error.remedy}
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return {
        "kind": "HoneError",
        "what": f"training failed: {type(error).__name__}: {first}",
        "where": None,
        "remedy": "the log has the whole of it; the newest checkpoint is as it was",
    }


def error_of(fault: Mapping[str, Any], *, log: str) -> HoneError:
    """The error again; `log` is named where nothing else says where."""
    kind: type[HoneError] = getattr(errors, str(fault["kind"]), HoneError)
    return kind(fault["what"], where=fault["where"] or log, remedy=fault["remedy"])
