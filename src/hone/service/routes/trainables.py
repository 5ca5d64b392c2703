"""`/v1/x_hone/models`: models that are trained call by call."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request

from hone.errors import HoneError
from hone.service.bodies import KeepCheckpoints, RegisterModel, read_body
from hone.service.desk import AtDesk, Caller
from hone.service.wire import trainable_object
from hone.serving.refusal import Refusal
from hone.trainable.folder import ModelFolder, check_name

router = APIRouter(prefix="/v1/x_hone/models")


@router.post("")
async def register(request: Request, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """Make a model known, or find it again; its base never changes."""
    body = await read_body(request, RegisterModel)
    for param, name in (("project", body.project), ("name", body.name)):
        try:
            check_name(name, param)
        except HoneError as error:
            raise Refusal(400, f"{error.what} ({error.remedy})", param=param) from error
    if body.base_model not in desk.operator.models:
        offered = ", ".join(desk.operator.models) or "none yet: the operator names them by --model"
        raise Refusal(
            400,
            f"no base model {body.base_model[:120]!r} is here; there are: {offered}",
            param="base_model",
            code="model_not_found",
        )
    made = await to_thread.run_sync(
        desk.store.register_trainable, caller.owner, body.project, body.name, body.base_model
    )
    await to_thread.run_sync(
        desk.store.note, caller, "model.registered", f"{body.project}/{body.name}"
    )
    return trainable_object(made)


@router.get("")
def list_models(desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """Every one of the owner's, oldest first."""
    found = [trainable_object(one) for one in desk.store.trainables(caller.owner)]
    return {"object": "list", "data": found, "has_more": False}


@router.get("/{project}/{name}")
def retrieve(project: str, name: str, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """One model, and the step that it is at."""
    return trainable_object(desk.store.trainable(caller.owner, project, name))


@router.delete("/{project}/{name}/checkpoints")
async def keep(
    project: str, name: str, request: Request, desk: AtDesk, caller: Caller
) -> dict[str, Any]:
    """Delete every checkpoint but those of `keep` and the newest, which training goes on from."""
    body = await read_body(request, KeepCheckpoints)

    def remove() -> dict[str, Any]:
        found = desk.store.trainable(caller.owner, project, name)
        root = desk.store.root / "trainable" / caller.owner
        folder = ModelFolder(root, found.project, found.name)
        steps = folder.steps()
        gone = [step for step in steps if step not in body.keep and step < max(*steps, found.step)]
        folder.remove_checkpoints(gone)
        desk.store.note(caller, "model.checkpoints-deleted", f"{project}/{name}", str(gone))
        return {**trainable_object(found), "deleted": gone}

    return await to_thread.run_sync(remove)
