"""`/v1/models`: what answers, and what can be trained."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from hone.service.desk import AtDesk, Caller
from hone.service.wire import model_object
from hone.serving.refusal import Refusal

router = APIRouter(prefix="/v1/models")


@router.get("")
def list_models(desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """The operator's base models, and the owner's own."""
    found = [model_object(name, desk.started, "system") for name in desk.operator.models]
    found += [
        model_object(one.name, one.created, one.owner) for one in desk.store.models(caller.owner)
    ]
    return {"object": "list", "data": found}


@router.get("/{model:path}")
def retrieve(model: str, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """One model."""
    if model in desk.operator.models:
        return model_object(model, desk.started, "system")
    found = desk.store.model(model, caller.owner)
    if found is None:
        raise Refusal(
            404, f"no model {model[:120]!r} is here", param="model", code="model_not_found"
        )
    return model_object(found.name, found.created, found.owner)


@router.delete("/{model:path}")
def delete(model: str, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """Forget a tuned model."""
    if model in desk.operator.models:
        raise Refusal(
            403, "base models are the operator's", param="model", code="model_not_deletable"
        )
    found = desk.store.delete_model(model, caller.owner)
    desk.store.note(caller, "model.deleted", model)
    return {"id": found.name, "object": "model", "deleted": True}
