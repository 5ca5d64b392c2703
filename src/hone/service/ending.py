"""How a job's end reads at the API: the error object of a failed one, without folders of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hone import errors
from hone.errors import HoneError
from hone.service.follow import hide

_KINDS: Final[tuple[tuple[type[HoneError], str, str | None], ...]] = (
    (errors.DataError, "invalid_training_file", "training_file"),
    (errors.NonFiniteError, "loss_not_finite", "training_file"),
    (errors.OutOfMemory, "out_of_memory", None),
    (errors.ModelError, "invalid_model", "model"),
    (errors.ConfigError, "invalid_config", "x_hone"),
    (errors.DiskError, "disk_error", None),
    (errors.RankLost, "rank_lost", None),
)
AGAIN: Final = frozenset({"rank_lost", "process_died"})
"""Ends that going on from the last checkpoint may mend."""


def error_object(error: HoneError, shown: Mapping[str, str]) -> dict[str, Any]:
    """`{code, message, param}` of what a job failed with."""
    known = ((code, param) for kind, code, param in _KINDS if isinstance(error, kind))
    code, param = next(known, ("training_failed", None))
    parts = [error.what]
    if error.where:
        parts.append(f"where: {error.where}")
    if error.remedy:
        parts.append(f"what to do: {error.remedy}")
    return {"code": code, "message": hide("; ".join(parts), shown), "param": param}
