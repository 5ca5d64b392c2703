"""`/v1/fine_tuning`: jobs, what happens to them, their checkpoints and who may use those."""

from __future__ import annotations

import re
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request

from hone.service.asking import ask, digest_of
from hone.service.bodies import CreateJob, CreatePermissions, read_body
from hone.service.desk import Admin, AtDesk, Caller, is_again
from hone.service.records import Job
from hone.service.wire import (
    checkpoint_object,
    event_object,
    job_object,
    page,
    permission_object,
)
from hone.serving.refusal import Refusal

router = APIRouter(prefix="/v1/fine_tuning")
_METADATA = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
_LONGEST_KEY = 255

After = Annotated[str | None, Query(max_length=64)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("/jobs")
async def create(request: Request, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """Ask for a job. A client that repeats its request gets the same job."""
    body = await read_body(request, CreateJob)
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= _LONGEST_KEY:
        raise Refusal(400, f"Idempotency-Key has 1 to {_LONGEST_KEY} characters")
    # The request that is repeated may still be under way: the first come is the first served.
    async with desk.turn(f"{caller.owner} {digest_of(body)}"):
        job, is_new = await to_thread.run_sync(
            lambda: ask(desk, caller, body, again=is_again(request), key=key)
        )
    if is_new:
        await to_thread.run_sync(desk.store.note, caller, "job.created", job.id)
        desk.wake.set()
    return job_object(job)


@router.get("/jobs")
def list_jobs(
    request: Request, desk: AtDesk, caller: Caller, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """A page of the owner's jobs, newest first; `metadata[KEY]=VALUE` and `metadata=null` choose."""
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        found = _METADATA.fullmatch(name)
        if found:
            wanted[found[1]] = value
        elif name == "metadata" and value != "null":
            raise Refusal(
                400, "metadata: write metadata[KEY]=VALUE, or metadata=null", param="metadata"
            )
    without = request.query_params.get("metadata") == "null"
    jobs, more = desk.store.jobs(
        caller.owner, after=after, limit=limit, metadata=wanted, without_metadata=without
    )
    return page([job_object(job) for job in jobs], more)


@router.get("/jobs/{fine_tuning_job_id}")
def retrieve(fine_tuning_job_id: str, desk: AtDesk, caller: Caller) -> dict[str, Any]:
    """One job."""
    return job_object(desk.store.job(fine_tuning_job_id, caller.owner))


@router.post("/jobs/{fine_tuning_job_id}/cancel")
def cancel(
    fine_tuning_job_id: str, request: Request, desk: AtDesk, caller: Caller
) -> dict[str, Any]:
    """End a job; its checkpoints stay."""
    job = desk.store.want(fine_tuning_job_id, caller.owner, "cancel", again=is_again(request))
    desk.store.note(caller, "job.cancelled", job.id)
    return job_object(job)


@router.post("/jobs/{fine_tuning_job_id}/pause")
def pause(
    fine_tuning_job_id: str, request: Request, desk: AtDesk, caller: Caller
) -> dict[str, Any]:
    """Stop a job where it is, so that it can go on."""
    job = desk.store.want(fine_tuning_job_id, caller.owner, "pause", again=is_again(request))
    desk.store.note(caller, "job.paused", job.id)
    return job_object(job)


@router.post("/jobs/{fine_tuning_job_id}/resume")
def resume(
    fine_tuning_job_id: str, request: Request, desk: AtDesk, caller: Caller
) -> dict[str, Any]:
    """Let a paused job go on."""
    job = desk.store.want(fine_tuning_job_id, caller.owner, "run", again=is_again(request))
    desk.store.note(caller, "job.resumed", job.id)
    return job_object(job)


@router.get("/jobs/{fine_tuning_job_id}/events")
def list_events(
    fine_tuning_job_id: str, desk: AtDesk, caller: Caller, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """A page of what happened to a job, newest first."""
    job = desk.store.job(fine_tuning_job_id, caller.owner)
    found, more = desk.store.events(job.id, after=after, limit=limit)
    return page([event_object(one) for one in found], more)


@router.get("/jobs/{fine_tuning_job_id}/checkpoints")
def list_checkpoints(
    fine_tuning_job_id: str, desk: AtDesk, caller: Caller, after: After = None, limit: Limit = 10
) -> dict[str, Any]:
    """A page of a job's checkpoints, newest first."""
    job: Job = desk.store.job(fine_tuning_job_id, caller.owner)
    found, more = desk.store.checkpoints(job.id, after=after, limit=limit)
    return page([checkpoint_object(one) for one in found], more)


@router.post("/checkpoints/{name:path}/permissions")
async def permit(name: str, request: Request, desk: AtDesk, caller: Admin) -> dict[str, Any]:
    """Let owners of other keys use a checkpoint."""
    body = await read_body(request, CreatePermissions)
    found = await to_thread.run_sync(desk.store.checkpoint, name, None)
    made = await to_thread.run_sync(desk.store.permit, found.name, body.project_ids)
    await to_thread.run_sync(
        desk.store.note, caller, "checkpoint.permitted", name, ", ".join(body.project_ids)
    )
    return page([permission_object(one) for one in made], has_more=False)


@router.get("/checkpoints/{name:path}/permissions")
def list_permissions(
    name: str,
    desk: AtDesk,
    caller: Admin,
    after: After = None,
    limit: Limit = 10,
    project_id: Annotated[str | None, Query(max_length=64)] = None,
    order: Annotated[str, Query(pattern="^(ascending|descending)$")] = "descending",
) -> dict[str, Any]:
    """Who else may use a checkpoint."""
    del caller
    found = desk.store.permissions(desk.store.checkpoint(name, None).name)
    found = [one for one in found if project_id in (None, one.project)]
    if order == "ascending":
        found.reverse()
    ids = [one.id for one in found]
    if after is not None:
        if after not in ids:
            raise Refusal(400, f"{after!r} is no permission of this checkpoint", param="after")
        found = found[ids.index(after) + 1 :]
    return page([permission_object(one) for one in found[:limit]], len(found) > limit)


@router.delete("/checkpoints/{name:path}/permissions/{permission_id}")
def forbid(name: str, permission_id: str, desk: AtDesk, caller: Admin) -> dict[str, Any]:
    """Take a permission back."""
    checkpoint = desk.store.checkpoint(name, None)
    if not desk.store.forbid(checkpoint.name, permission_id):
        raise Refusal(404, f"no permission {permission_id[:80]!r} is here", param="permission_id")
    desk.store.note(caller, "checkpoint.forbidden", name, permission_id)
    return {"id": permission_id, "object": "checkpoint.permission", "deleted": True}
