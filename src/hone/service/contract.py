"""The API as an OpenAPI document: `python -m hone.service.contract` writes `openapi.json` beside this file.

Paths and parameters are the application's own; bodies and answers are its schemas.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from hone.service import answers, bodies

PLACE: Final = Path(__file__).with_name("openapi.json")
_F: Final = "/v1/files"
_J: Final = "/v1/fine_tuning/jobs"
_C: Final = "/v1/fine_tuning/checkpoints/{name}/permissions"
_U: Final = "/v1/uploads"
_X: Final = "/v1/x_hone/models"
_BODIES: Final[dict[tuple[str, str], type[bodies.Body]]] = {
    ("post", _J): bodies.CreateJob,
    ("post", _C): bodies.CreatePermissions,
    ("post", _U): bodies.CreateUpload,
    ("post", f"{_U}/{{upload_id}}/complete"): bodies.CompleteUpload,
    ("post", _X): bodies.RegisterModel,
    ("delete", f"{_X}/{{project}}/{{name}}/checkpoints"): bodies.KeepCheckpoints,
}
_JOB: Final = f"{_J}/{{fine_tuning_job_id}}"
_ANSWERS: Final[dict[tuple[str, str], type[answers.Answer]]] = {
    ("post", _F): answers.File,
    ("get", _F): answers.Files,
    ("get", f"{_F}/{{file_id}}"): answers.File,
    ("delete", f"{_F}/{{file_id}}"): answers.Deleted,
    ("post", _U): answers.Upload,
    ("post", f"{_U}/{{upload_id}}/parts"): answers.Part,
    ("post", f"{_U}/{{upload_id}}/complete"): answers.Upload,
    ("post", f"{_U}/{{upload_id}}/cancel"): answers.Upload,
    ("post", _J): answers.Job,
    ("get", _J): answers.Jobs,
    ("get", _JOB): answers.Job,
    ("post", f"{_JOB}/cancel"): answers.Job,
    ("post", f"{_JOB}/pause"): answers.Job,
    ("post", f"{_JOB}/resume"): answers.Job,
    ("get", f"{_JOB}/events"): answers.Events,
    ("get", f"{_JOB}/checkpoints"): answers.Checkpoints,
    ("post", _C): answers.Permissions,
    ("get", _C): answers.Permissions,
    ("delete", f"{_C}/{{permission_id}}"): answers.Deleted,
    ("get", "/v1/models"): answers.Models,
    ("get", "/v1/models/{model}"): answers.Model,
    ("delete", "/v1/models/{model}"): answers.Deleted,
    ("post", _X): answers.Trainable,
    ("get", _X): answers.Trainables,
    ("get", f"{_X}/{{project}}/{{name}}"): answers.Trainable,
    ("delete", f"{_X}/{{project}}/{{name}}/checkpoints"): answers.Trainable,
}
_TEXT: Final = {"type": "string"}
_FORMS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("post", _F): {
        "type": "object",
        "required": ["purpose", "file"],
        "properties": {
            "purpose": {"type": "string", "enum": list(bodies.PURPOSES)},
            "file": {"type": "string", "format": "binary"},
        },
    },
    ("post", f"{_U}/{{upload_id}}/parts"): {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"type": "string", "format": "binary"}},
    },
}
_BYTES: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_OTHERS: Final[dict[str, dict[str, Any]]] = {
    "/metrics": {"text/plain": {"schema": _TEXT}},
    f"{_F}/{{file_id}}/content": _BYTES,
    f"{_F}/{{file_id}}/x_hone/errors": _BYTES,
    "/v1/chat/completions": {
        "application/json": {"schema": {"type": "object"}},
        "text/event-stream": {"schema": _TEXT},
    },
}
"""Answers that are no objects of ours."""
_OPEN: Final = frozenset({"/health", "/metrics", "/openapi.json"})
_CHAT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {"model": _TEXT, "messages": {"type": "array", "minItems": 1, "items": {}}},
}


def describe(api: FastAPI) -> dict[str, Any]:
    """The document of an application's paths."""
    told: dict[str, Any] = api.openapi()
    inputs = list(dict.fromkeys(_BODIES.values()))
    outputs = [*dict.fromkeys(_ANSWERS.values()), answers.Error]
    named, schemas = models_json_schema(
        [*((one, "validation") for one in inputs), *((one, "serialization") for one in outputs)],
        ref_template="#/components/schemas/{model}",
    )
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            _fill(operation, method, path, named)
    told["components"] = {
        "schemas": schemas["$defs"],
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    }
    return told


def _fill(operation: dict[str, Any], method: str, path: str, named: Any) -> None:
    """One operation's body, answers and key."""
    error = {"application/json": {"schema": named[answers.Error, "serialization"]}}
    responses: dict[str, Any] = {"default": {"description": "An error", "content": error}}
    good = _ANSWERS.get((method, path))
    responses["200"] = operation["responses"]["200"]
    if good is not None:
        schema = named[good, "serialization"]
        responses["200"] = {
            "description": "Done",
            "content": {"application/json": {"schema": schema}},
        }
    elif path in _OTHERS:
        responses["200"] = {"description": "Done", "content": _OTHERS[path]}
    operation["responses"] = responses
    body: dict[str, Any] | None = None
    if (method, path) in _BODIES:
        body = {"application/json": {"schema": named[_BODIES[method, path], "validation"]}}
    elif (method, path) in _FORMS:
        body = {"multipart/form-data": {"schema": _FORMS[method, path]}}
    elif path == "/v1/chat/completions":
        body = {"application/json": {"schema": _CHAT}}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    if path not in _OPEN:
        operation["security"] = [{"key": []}]


def text_of(api: FastAPI) -> str:
    """The document as it is shipped."""
    return json.dumps(describe(api), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    from hone.service.app import make_paths

    PLACE.write_text(text_of(make_paths()), encoding="utf-8")
