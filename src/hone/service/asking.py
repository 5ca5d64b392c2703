"""A request for a job, checked as far as it can be before its rows are known. It knows no HTTP."""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any, Final

from hone.errors import HoneError
from hone.service.bodies import CreateJob, TrainableCall
from hone.service.desk import Desk
from hone.service.records import Job, Key, NewJob
from hone.service.translation import (
    ALLOWED,
    Refused,
    check_config,
    check_hyperparameters,
    settle,
)
from hone.serving.refusal import Refusal
from hone.trainable.settings import LoRAConfig

WINDOW_S: Final = 600
"""How long a repeated request without a key of its own is known again."""
_KEY_WINDOW_S: Final = 86_400
_CALL_WINDOW_S: Final = 10 * 365 * 86_400


def ask(
    desk: Desk, caller: Key, body: CreateJob, *, again: bool, key: str | None
) -> tuple[Job, bool]:
    """The job that a request asks for, and whether it is new. Raises Refusal.

    `again` says that the client asks for another time, `key` is its name for the request. A call on a trainable model
    carries such a name in itself.
    """
    told: dict[str, Any] = body.model_dump(exclude_none=True)
    call = body.x_hone.trainable if body.x_hone else None
    base, model = _model(desk, caller, body, call)
    new = NewJob(
        model=model,
        base=base,
        body=told,
        training_file=_file(desk, caller, body.training_file, "training_file"),
        validation_file=None
        if body.validation_file is None
        else _file(desk, caller, body.validation_file, "validation_file"),
        config=_config(desk, body),
        hyperparameters=said_hyperparameters(told)[0],
        metadata=dict(body.metadata or {}),
        seed=secrets.randbelow(2**31) if body.seed is None else body.seed,
        suffix=body.suffix,
    )
    if call is not None:
        return desk.store.add_job(
            caller.owner, new, digest=f"call:{call.call}", again=True, window_s=_CALL_WINDOW_S, any_body=True, key=caller
        )  # fmt: skip
    if key is not None:
        digest = f"key:{hashlib.sha256(key.encode()).hexdigest()}"
        return desk.store.add_job(
            caller.owner, new, digest=digest, again=True, window_s=_KEY_WINDOW_S, key=caller
        )
    return desk.store.add_job(
        caller.owner, new, digest=digest_of(body), again=again, window_s=WINDOW_S, key=caller
    )


def digest_of(body: CreateJob) -> str:
    """What a request asks for, in one word."""
    told = json.dumps(body.model_dump(exclude_none=True), sort_keys=True, ensure_ascii=False)
    return f"body:{hashlib.sha256(told.encode('utf-8', 'surrogatepass')).hexdigest()}"


def said_hyperparameters(body: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The hyperparameters of a body as they were said, and where they stand in it."""
    inner: dict[str, Any] = body.get("method", {}).get("supervised", {})
    if "hyperparameters" in inner:
        return dict(inner["hyperparameters"]), "method.supervised.hyperparameters"
    return dict(body.get("hyperparameters", {})), "hyperparameters"


def refusal_of(refused: Refused) -> Refusal:
    """A refusal of the translation, for the wire."""
    said = refused.what if refused.remedy is None else f"{refused.what} ({refused.remedy})"
    return Refusal(400, said, param=refused.param, code="invalid_value")


def _model(desk: Desk, caller: Key, body: CreateJob, call: TrainableCall | None) -> tuple[str, str]:
    """The base, and the name that is trained."""
    if call is None:
        return desk.base_of(body.model, caller.owner), body.model
    name = f"{call.project}/{call.name}"
    if body.model != name:
        raise Refusal(400, f"model: a call on {name} names it as its model", param="model")
    found = desk.store.trainable(caller.owner, call.project, call.name)
    if call.settings is not None and call.settings.lora_config is not None:
        try:
            LoRAConfig.of(call.settings.lora_config)
        except (HoneError, TypeError) as error:
            raise Refusal(400, str(error), param="x_hone.trainable.settings.lora_config") from error
    return found.base, name


def _file(desk: Desk, caller: Key, file: str, param: str) -> str:
    """A file that a job may read."""
    try:
        found = desk.store.file(file, caller.owner)
    except Refusal as refusal:
        raise Refusal(400, str(refusal), param=param, code="file_not_found") from refusal
    if found.purpose != "fine-tune":
        raise Refusal(
            400,
            f"{file} was uploaded for {found.purpose!r}; upload it with purpose 'fine-tune'",
            param=param,
            code="invalid_file_purpose",
        )
    if found.status == "error":
        raise Refusal(
            400, f"{file} cannot be trained on: {found.details}", param=param, code=f"invalid_{param}"
        )  # fmt: skip
    return file


def _config(desk: Desk, body: CreateJob) -> dict[str, Any]:
    told: dict[str, Any] = body.model_dump(exclude_none=True)
    if body.hyperparameters is not None and body.method is not None:
        inner = body.method.supervised
        if inner is not None and inner.hyperparameters not in (None, body.hyperparameters):
            raise Refusal(
                400,
                "hyperparameters and method.supervised.hyperparameters differ; say one of them",
                param="hyperparameters",
            )
    said, place = said_hyperparameters(told)
    try:
        numbers = check_hyperparameters(said, place)
        config = check_config(
            body.x_hone.config if body.x_hone else None, desk.operator.allowed or ALLOWED
        )
        if body.x_hone and body.x_hone.trainable is None:
            _try(desk, numbers, config, place)
    except Refused as refused:
        raise refusal_of(refused) from refused
    return config


def _try(desk: Desk, numbers: dict[str, Any], config: dict[str, Any], place: str) -> None:
    """Whether the settings go together, whatever the rows are: what can be known now is refused now."""
    settle(numbers, config, place=place, seed=0, rows=100, operator=desk.operator.settings)
