"""A service that answers on a port of this machine, and a worker that plays its part by a script."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from hone.service.operator import Operator
from hone.service.records import Job, NewCheckpoint, NewEvent
from hone.service.server import Service
from hone.service.store import Store
from hone.serving.server import Address

ROWS = 12


def rows(count: int = ROWS) -> bytes:
    """A file of conversations."""
    return b"".join(
        json.dumps(
            {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]}
        ).encode()
        + b"\n"
        for n in range(count)
    )  # fmt: skip


@dataclass
class Served:
    """The service, and Bob's key."""

    service: Service
    key: str

    @property
    def store(self) -> Store:
        return self.service.store

    def client(self, key: str | None = None, **more: Any) -> openai.OpenAI:
        more.setdefault("max_retries", 0)
        return openai.OpenAI(base_url=self.service.base_url, api_key=key or self.key, **more)

    def uploaded(self, data: bytes | None = None) -> str:
        file = self.client().files.create(file=("rows.jsonl", data or rows()), purpose="fine-tune")
        return file.id


@contextlib.contextmanager
def serving(root: Path, *, port: int = 0, **operator: Any) -> Generator[Served]:
    """A service with the base model `tiny`."""
    operator.setdefault("models", {"tiny": "nowhere"})
    service = Service(root, Operator(**operator), Address(port=port))
    key = service.store.create_key("bob", max_running=4, is_admin=True)[1]
    service.start()
    try:
        yield Served(service, key)
    finally:
        service.stop()


def work(store: Store, *, steps: int = 3, status: str = "succeeded") -> Job:
    """What a worker writes of a job that trains `steps` steps."""
    job = store.claim("scripted", 60)
    assert job is not None
    for step in range(1, steps + 1):
        told = {"step": step, "total_steps": steps, "train_loss": 1.0 / step}
        event = NewEvent(f"Step {step}/{steps}: training loss={1 / step:.2f}", type="metrics", data=told, mark=f"step:{step}")  # fmt: skip
        store.add_events(
            job.id, job.fence, [event], offset=step, progress={"step": step, "total_steps": steps}
        )
    store.add_events(
        job.id,
        job.fence,
        [],
        checkpoints=[NewCheckpoint(steps, "jobs/x/c", {"train_loss": 1 / steps})],
    )
    place = None if "trainable" in job.body.get("x_hone", {}) else "jobs/x/run"
    return store.release(job.id, job.fence, status, model_path=place, trained_tokens=99)
