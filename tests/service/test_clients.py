"""The whole story of a job, told by one client after the other: only the address and the key are ours.

With a scripted worker in every run of the tests, with real training at full size. An older generation of the client
lies in an environment of its own: `pip install 'openai<3'` there, HONE_OPENAI2_PYTHON=its python.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from hone.service.shift import Slots
from tests.folders import model_folder
from tests.service import told_story as script
from tests.service.served import Served, rows, serving, work


@contextlib.contextmanager
def playing(served: Served) -> Generator[None]:
    """A scripted worker, which does each job that comes."""
    over = threading.Event()

    def play() -> None:
        while not over.wait(0.05):
            with contextlib.suppress(AssertionError):  # none is queued
                work(served.store)

    player = threading.Thread(target=play)
    player.start()
    try:
        yield
    finally:
        over.set()
        player.join()


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("scripted")) as served, playing(served):
        yield served


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("real")
    base = model_folder(place / "tiny")
    with serving(place / "root", Slots(1, threads=1), models={"tiny": str(base)}) as served:
        yield served


@pytest.fixture
def older() -> str:
    python = os.environ.get("HONE_OPENAI2_PYTHON", "")
    if shutil.which(python) is None:
        pytest.skip("no older client (an environment with 'openai<3', HONE_OPENAI2_PYTHON=python)")
    return python


def by_async(served: Served, chats: bool) -> dict[str, Any]:
    """The story by the asynchronous client, here."""

    async def tell() -> dict[str, Any]:
        url = served.service.base_url
        async with openai.AsyncOpenAI(base_url=url, api_key=served.key, max_retries=0) as client:
            return await script.told_story(client, rows(), "tiny", chats=chats)

    return asyncio.run(tell())


def by_older(served: Served, chats: bool, python: str, kind: str, place: Path) -> dict[str, Any]:
    """The story by another environment's client."""
    data = place / "rows.jsonl"
    data.write_bytes(rows())
    words = [
        python,
        str(script.__file__),
        kind,
        str(data),
        "tiny",
        "chats" if chats else "no-chats",
    ]
    known = {"HONE_BASE_URL": served.service.base_url, "HONE_API_KEY": served.key}
    done = subprocess.run(
        words, env={"PATH": os.environ["PATH"], **known}, cwd=place, capture_output=True, text=True, check=False,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def check(said: dict[str, Any], *, chats: bool) -> None:
    assert (said["file"], said["content"], said["created"]) == (
        "processed",
        rows().decode(),
        "validating_files",
    )
    end = said["end"]
    assert (end["status"], end["seed"], end["metadata"]) == (
        "succeeded",
        7,
        {"from": "python"},
    )
    assert end["fine_tuned_model"].startswith("ft:tiny:bob:told:")
    assert end["id"] in said["jobs"]
    steps = [one["data"]["step"] for one in said["events"] if one["type"] == "metrics"]
    assert steps == [3, 2, 1], "newest first, over several pages"
    assert said["checkpoints"][0] == 3
    assert end["fine_tuned_model"] in said["models"]
    assert (said["model deleted"], said["file deleted"]) == (True, True)
    assert said["afterwards"] == "model_not_found"
    if chats:
        assert [line.split(",")[0] for line in said["csv"].split()] == ["step", "1", "2", "3"]
        assert said["chat"]["whole"]
        assert said["chat"]["whole"] == said["chat"]["streamed"]


def test_the_asynchronous_client(scripted: Served) -> None:
    check(by_async(scripted, chats=False), chats=False)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_older_client(scripted: Served, older: str, kind: str, tmp_path: Path) -> None:
    said = by_older(scripted, False, older, kind, tmp_path)
    assert said["client"].startswith("2.")
    check(said, chats=False)


@pytest.mark.slow
def test_the_asynchronous_client_trains_and_asks(real: Served) -> None:
    check(by_async(real, chats=True), chats=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_older_client_trains_and_asks(
    real: Served, older: str, kind: str, tmp_path: Path
) -> None:
    check(by_older(real, True, older, kind, tmp_path), chats=True)


class Curl:
    """What is typed at a shell."""

    def __init__(self, served: Served) -> None:
        self._base = ["curl", "-sS", "-f", "-m", "120", "-H", f"Authorization: Bearer {served.key}"]
        self._url = served.service.base_url

    def text(self, path: str, *words: str) -> str:
        done = subprocess.run(
            [*self._base, *words, self._url + path], capture_output=True, text=True, check=False, timeout=130
        )  # fmt: skip
        assert done.returncode == 0, (path, done.stdout, done.stderr)
        return done.stdout

    def __call__(self, path: str, *words: str) -> Any:
        return json.loads(self.text(path, *words))

    def post(self, path: str, body: object) -> Any:
        return self(path, "-H", "Content-Type: application/json", "-d", json.dumps(body))


def by_curl(served: Served, place: Path, *, chats: bool) -> dict[str, Any]:
    """The story by curl."""
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    curl = Curl(served)
    data = place / "rows.jsonl"
    data.write_bytes(rows())
    file = curl("/files", "-F", "purpose=fine-tune", "-F", f"file=@{data}")
    said: dict[str, Any] = {
        "file": file["status"],
        "content": curl.text(f"/files/{file['id']}/content"),
    }
    method = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}},
    }
    asked = {"model": "tiny", "training_file": file["id"], "suffix": "told", "seed": 7}
    job = curl.post(
        "/fine_tuning/jobs", {**asked, "metadata": {"from": "python"}, "method": method}
    )
    said["created"] = job["status"]
    place_of_job = f"/fine_tuning/jobs/{job['id']}"
    until = time.monotonic() + 120
    while job["status"] not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < until, job
        time.sleep(0.2)
        job = curl(place_of_job)
    said["end"] = job
    said["jobs"] = [one["id"] for one in curl("/fine_tuning/jobs?limit=1")["data"]]
    said["events"] = curl(f"{place_of_job}/events?limit=100")["data"]
    found = curl(f"{place_of_job}/checkpoints")["data"]
    said["checkpoints"] = [one["step_number"] for one in found]
    for csv in job["result_files"]:
        said["csv"] = curl.text(f"/files/{csv}/content")
    name = job["fine_tuned_model"]
    if chats:
        chat = {"model": name, "max_tokens": 4, "temperature": 0}
        chat["messages"] = [{"role": "user", "content": "3?"}]
        whole = curl.post("/chat/completions", chat)["choices"][0]["message"]["content"]
        said["chat"] = {"whole": whole, "streamed": whole}
    said["models"] = [one["id"] for one in curl("/models")["data"]]
    said["model deleted"] = curl(f"/models/{name}", "-X", "DELETE")["deleted"]
    said["file deleted"] = curl(f"/files/{file['id']}", "-X", "DELETE")["deleted"]
    gone = curl(f"/models/{name}", "--no-fail")
    said["afterwards"] = gone["error"]["code"]
    return said


def test_curl(scripted: Served, tmp_path: Path) -> None:
    check(by_curl(scripted, tmp_path, chats=False), chats=False)


@pytest.mark.slow
def test_curl_trains_and_asks(real: Served, tmp_path: Path) -> None:
    check(by_curl(real, tmp_path, chats=True), chats=True)
