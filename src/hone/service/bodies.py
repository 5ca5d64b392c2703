"""What requests may hold, field by field, and how a body that holds something else is refused. It knows no store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone.data.strict import parse_value
from hone.errors import DataError, nearest
from hone.serving.refusal import Refusal

_B = TypeVar("_B", bound="Body")
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
Seconds = Annotated[int, Field(ge=3600, le=2_592_000)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Auto = Literal["auto"]


class Body(BaseModel):
    """A JSON body, or an object in one."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Hyperparameters(Body):
    """Of supervised training; what is `auto` follows from the rows."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[int, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0)] = "auto"


class Supervised(Body):
    """The supervised method's part."""

    hyperparameters: Hyperparameters | None = None


class Method(Body):
    """How to train."""

    type: Literal["supervised"]
    supervised: Supervised | None = None


class CallSettings(Body):
    """What a trainable model begins with, said at its first call."""

    lora_config: dict[str, Any] | None = None


class TrainableCall(Body):
    """One call of training on a model that is trained call by call."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    name: Annotated[str, Field(min_length=1, max_length=128)]
    expected_step: Annotated[int, Field(ge=0)]
    learning_rate: Annotated[float, Field(gt=0)] | list[Annotated[float, Field(ge=0)]]
    batch_size: Auto | Annotated[int, Field(ge=1)] = "auto"
    call: Annotated[str, Field(min_length=8, max_length=64)]
    train_on: Literal["all", "last"] | None = None
    settings: CallSettings | None = None


class Extension(Body):
    """Hone's own: settings of its configuration, or a call on a trainable model."""

    config: dict[str, Any] | None = None
    trainable: TrainableCall | None = None


class CreateJob(Body):
    """`POST /v1/fine_tuning/jobs`."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    training_file: Annotated[str, Field(min_length=1, max_length=64)]
    validation_file: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    suffix: Name | None = None
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    integrations: Annotated[list[Any], Field(max_length=0)] | None = None
    x_hone: Extension | None = None


class ExpiresAfter(Body):
    """When a file goes by itself."""

    anchor: Literal["created_at"]
    seconds: Seconds


class CreateUpload(Body):
    """`POST /v1/uploads`."""

    bytes: Annotated[int, Field(ge=1, le=2**40)]
    filename: Annotated[str, Field(min_length=1, max_length=255)]
    mime_type: Annotated[str, Field(min_length=1, max_length=128)]
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class CompleteUpload(Body):
    """`POST /v1/uploads/{upload_id}/complete`."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=100_000)]
    md5: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class CreatePermissions(Body):
    """`POST /v1/fine_tuning/checkpoints/{name}/permissions`."""

    project_ids: Annotated[list[Name], Field(min_length=1, max_length=100)]


class RegisterModel(Body):
    """`POST /v1/x_hone/models`."""

    project: Annotated[str, Field(min_length=1, max_length=128)]
    name: Annotated[str, Field(min_length=1, max_length=128)]
    base_model: Annotated[str, Field(min_length=1, max_length=256)]


class KeepCheckpoints(Body):
    """`DELETE /v1/x_hone/models/{project}/{name}/checkpoints`."""

    keep: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=100_000)]


async def read_json(request: Request) -> Any:
    """The strict JSON of a body. Raises Refusal."""
    data = await request.body()
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A page elsewhere may send text without asking, JSON never.
        raise Refusal(400, f"a body of application/json is wanted; found {kind[:80]!r}")
    if not data:
        raise Refusal(400, "a JSON body is wanted; found none")
    try:
        return parse_value(data, "body")
    except DataError as error:
        raise Refusal(400, f"the body is no JSON: {error.what}") from error


async def read_body(request: Request, kind: type[_B]) -> _B:
    """The body, checked. Raises Refusal that names the field."""
    value = await read_json(request)
    if not isinstance(value, dict):
        raise Refusal(400, "a JSON object is wanted as body")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _refusal(error, kind) from error


def _refusal(error: ValidationError, kind: type[Body]) -> Refusal:
    """The first thing that is wrong, by its place; the others are counted."""
    found = error.errors(include_url=False, include_context=False)
    deepest = max(found, key=lambda one: (one["type"] == "extra_forbidden", -found.index(one)))
    place = _place(deepest["loc"])
    param = ".".join(place) or None
    told = deepest["msg"]
    given = json.dumps(deepest["input"], default=str)[:80]
    if deepest["type"] == "extra_forbidden":
        told = f"there is no such parameter; {nearest(place[-1], _fields(kind, place[:-1]))}"
    elif deepest["type"] == "missing":
        told = "it is required"
    else:
        alike = [one["msg"] for one in found if _place(one["loc"]) == place]
        told = f"{' or: '.join(dict.fromkeys(alike))}; found {given}"
    more = len({tuple(_place(one["loc"])) for one in found}) - 1
    said = f"{param or 'the body'}: {told}" + (f" (and {more} more)" if more else "")
    return Refusal(400, said, param=param, code=_CODES.get(deepest["type"], "invalid_value"))


_CODES = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}


def _place(loc: Sequence[int | str]) -> list[str]:
    """Where in the body; pydantic adds the alternative of a union that it tried."""
    kept: list[str] = []
    for part in loc:
        text = str(part)
        if text in _BRANCHES or text.startswith(("literal[", "function-", "constrained", "list[")):
            continue
        if kept and kept[-1] == "metadata" and text == "[key]":
            continue
        kept.append(text)
    return kept


_BRANCHES = frozenset({"int", "float", "str", "[key]"})


def _fields(kind: type[Body], place: Sequence[str]) -> list[str]:
    """The names that are allowed at a place."""
    for part in place:
        field = kind.model_fields.get(part)
        inner = None if field is None else _body_in(field.annotation)
        if inner is None:
            return []
        kind = inner
    return list(kind.model_fields)


def _body_in(annotation: Any) -> type[Body] | None:
    if isinstance(annotation, type) and issubclass(annotation, Body):
        return annotation
    for inner in get_args(annotation):
        found = _body_in(inner)
        if found is not None:
            return found
    return None
