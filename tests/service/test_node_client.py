"""The official Node client, as it is, against a service: `npm install openai` in a folder, named by HONE_NODE_MODULES."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.service.served import rows, serving, work

STORY = Path(__file__).parent / "node" / "story.mjs"


@pytest.fixture
def modules() -> str:
    place = os.environ.get("HONE_NODE_MODULES", "")
    if shutil.which("node") is None or not (Path(place) / "node_modules" / "openai").is_dir():
        pytest.skip(
            "no Node client here (npm install openai in a folder, HONE_NODE_MODULES=folder)"
        )
    return place


def told(modules: str, url: str, key: str, *words: str) -> dict[str, Any]:
    """What the story says."""
    done = subprocess.run(
        ["node", str(STORY), *words], capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "HONE_NODE_MODULES": modules, "HONE_BASE_URL": url, "HONE_API_KEY": key},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    return found


def test_a_jobs_story(modules: str, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_bytes(rows())
    with serving(tmp_path / "root") as served:

        def play() -> None:
            while not served.store.count_jobs():
                threading.Event().wait(0.05)
            while True:
                try:
                    work(served.store)
                except AssertionError:  # it is not queued yet
                    threading.Event().wait(0.05)
                else:
                    return

        player = threading.Thread(target=play)
        player.start()
        said = told(modules, served.service.base_url, served.key, str(data), "tiny", "no-chats")
        player.join()
    assert said["file"] == "processed"
    assert said["content"].encode() == rows()
    job, end = said["job"], said["end"]
    assert (job["status"], job["seed"], job["metadata"]) == (
        "validating_files",
        7,
        {"from": "node"},
    )
    assert (end["status"], end["id"]) == ("succeeded", job["id"])
    assert end["hyperparameters"] == {"n_epochs": 1, "batch_size": 4, "learning_rate_multiplier": 1}
    assert end["fine_tuned_model"].startswith("ft:tiny:bob:node:")
    assert said["jobs"] == [job["id"]]
    steps = [one["data"]["step"] for one in said["events"] if one["type"] == "metrics"]
    assert steps == [3, 2, 1], "newest first, over several pages"
    assert [one["step_number"] for one in said["checkpoints"]] == [3]
    assert said["refusals"] == [
        {"status": 404, "param": "fine_tuning_job_id", "request": True},
        {"status": 400, "param": "fine_tuning_job_id", "request": True},
        {"status": 400, "param": "model", "request": True},
    ]
    assert said["model"]["deleted"] is True
    assert said["deleted"]["deleted"] is True
