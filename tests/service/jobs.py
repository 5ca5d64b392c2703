"""Stores with something in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hone.service.names import FILE, new_id
from hone.service.records import Job, NewJob
from hone.service.store import Store

BOB = "bob"


def store_of(root: Path, *owners: str, **limits: Any) -> Store:
    """A store with a key for each owner."""
    store = Store(root)
    for owner in owners or (BOB,):
        store.create_key(owner, **limits)
    return store


def queued(store: Store, owner: str = BOB, **more: Any) -> Job:
    """A job that waits for a worker."""
    job, _ = store.add_job(owner, NewJob("tiny", "tiny", {"model": "tiny"}, new_id(FILE), **more))
    store.ready_job(job.id, {"n_epochs": 1}, {})
    return store.job(job.id)
