"""A job's story through the official Python client of any generation: by itself a script, which tells it in JSON.

`python told_story.py sync|async ROWS MODEL chats|no-chats`, with HONE_BASE_URL and HONE_API_KEY. It needs `openai` alone.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

import openai


async def _got(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _all(pages: Any) -> list[Any]:
    """Every one of a page and those after it, or of a stream."""
    if hasattr(pages, "__aiter__"):
        return [one async for one in pages]
    pages = await _got(pages)
    return [one async for one in pages] if hasattr(pages, "__aiter__") else list(pages)


async def told_story(client: Any, rows: bytes, model: str, *, chats: bool) -> dict[str, Any]:
    """Upload, create, poll, events, checkpoints, result file, chat, delete; what the service said to each."""
    said: dict[str, Any] = {"client": openai.__version__}
    jobs = client.fine_tuning.jobs
    file = await _got(client.files.create(file=("rows.jsonl", rows), purpose="fine-tune"))
    said["file"] = (await _got(client.files.wait_for_processing(file.id))).status
    said["content"] = (await _got(client.files.content(file.id))).text
    job = await _got(
        jobs.create(
            model=model,
            training_file=file.id,
            suffix="told",
            seed=7,
            metadata={"from": "python"},
            method={
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}},
            },
        )
    )
    said["created"] = job.status
    while job.status not in ("succeeded", "failed", "cancelled"):
        await asyncio.sleep(0.2)
        job = await _got(jobs.retrieve(job.id))
    said["end"] = job.to_dict(mode="json")
    said["jobs"] = [one.id for one in await _all(jobs.list(limit=1))]
    events = await _all(jobs.list_events(job.id, limit=2))
    said["events"] = [one.to_dict(mode="json") for one in events]
    checkpoints = await _all(jobs.checkpoints.list(job.id, limit=1))
    said["checkpoints"] = [one.step_number for one in checkpoints]
    csv = job.result_files[0] if job.result_files else None
    said["csv"] = None if csv is None else (await _got(client.files.content(csv))).text
    if chats:
        said["chat"] = await _chat(client, job.fine_tuned_model)
    said["models"] = [one.id for one in await _all(client.models.list())]
    said["model deleted"] = (await _got(client.models.delete(job.fine_tuned_model))).deleted
    said["file deleted"] = (await _got(client.files.delete(file.id))).deleted
    try:
        await _got(client.models.retrieve(job.fine_tuned_model))
    except openai.NotFoundError as error:
        said["afterwards"] = error.code
    return said


async def _chat(client: Any, model: str) -> dict[str, str]:
    asked: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "3?"}],
        "max_tokens": 4,
        "temperature": 0,
    }
    whole = await _got(client.chat.completions.create(**asked))
    chunks = await _all(await _got(client.chat.completions.create(**asked, stream=True)))
    words = [one.choices[0].delta.content or "" for one in chunks if one.choices]
    return {"whole": whole.choices[0].message.content, "streamed": "".join(words)}


if __name__ == "__main__":
    kind, place, base, chatting = sys.argv[1:]
    maker = {"sync": openai.OpenAI, "async": openai.AsyncOpenAI}[kind]
    asker = maker(base_url=os.environ["HONE_BASE_URL"], max_retries=0, api_key=os.environ["HONE_API_KEY"])  # fmt: skip
    told = told_story(asker, Path(place).read_bytes(), base, chats=chatting == "chats")
    print(json.dumps(asyncio.run(told)))
