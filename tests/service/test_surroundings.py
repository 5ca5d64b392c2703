"""A service in odd surroundings, under strange base models, before slow clients: same answers, nothing open, nothing run."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx2
import pytest

from hone.service import app
from hone.service.tables import keys
from hone.serving.gate import Rules
from tests.folders import model_folder
from tests.service.jobs import store_of
from tests.service.served import serving
from tests.service.works import asked, worker

SERVE = """
import json, os, re, sys
os.umask(0)
from pathlib import Path
from tests.service.served import rows, serving, work
import time
with serving(Path(sys.argv[1])) as served:
    client = served.client()
    file = client.files.create(file=("I\\u0131\\u00df.jsonl", rows()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, suffix="INDIGO I", seed=1)
    while client.fine_tuning.jobs.retrieve(job.id).status != "queued":
        time.sleep(0.02)
    work(served.store)
    end = client.fine_tuning.jobs.retrieve(job.id)
    events = [one.message for one in client.fine_tuning.jobs.list_events(job.id)]
    name = end.fine_tuned_model.rpartition(":")[0]
    told = [file.filename, end.hyperparameters.to_dict(), name, end.created_at // 86400, events[:-1]]
    print(re.sub("file-[0-9a-f]{32}|:[0-9a-z]{8}(?![0-9a-z])", "ID", json.dumps(told)))
"""
ODD = {
    "plain": {"HOME": "/root", "TZ": "UTC"},
    "C": {"LC_ALL": "C", "TZ": "Pacific/Kiritimati"},
    "German": {"LC_ALL": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8", "TZ": "Antarctica/Troll"},
    "Turkish": {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
}


@pytest.mark.fault(37)
@pytest.mark.fault(38)
def test_the_surroundings_change_no_answer_and_open_no_file(tmp_path: Path) -> None:
    """Without HOME but once, with a umask that leaves everything open."""
    said: dict[str, str] = {}
    for name, more in ODD.items():
        root = tmp_path / name
        environment = {"PATH": os.environ["PATH"], **more}
        done = subprocess.run(
            [sys.executable, "-c", SERVE, str(root)], cwd=Path(__file__).parents[2], env=environment,
            capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        said[name] = done.stdout
        for path in (root, *root.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert json.loads(said["plain"])[2] == "ft:tiny:bob:indigo-i"
    assert said["C"] == said["plain"]
    assert said["Turkish"] == said["German"] == said["plain"]


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self._path),)


def pickled(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(canary)))


def renamed(folder: Path, canary: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Canary(canary)))


def with_code(folder: Path, canary: Path) -> None:
    code = f"import os\nos.mkdir({str(canary)!r})\n"
    for name in ("configuration_x.py", "modeling_x.py"):
        (folder / name).write_text(code)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {
        "model_type": "x",
        "architectures": ["X"],
        "auto_map": {
            "AutoConfig": "configuration_x.XConfig",
            "AutoModelForCausalLM": "modeling_x.X",
        },
    }
    path.write_text(json.dumps(config))


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (pickled, "are pickled"),
        (renamed, "safetensors"),
        (with_code, "architecture|model_type|'x'"),
    ],
)
def test_a_base_that_wants_to_run_code_fails_its_job(
    tmp_path: Path, spoil: Callable[[Path, Path], None], match: str
) -> None:
    canary = tmp_path / "canary"
    spoil(model_folder(tmp_path / "model"), canary)
    store = store_of(tmp_path)
    job = asked(store)
    process = worker(tmp_path, "--until-idle")
    try:
        assert process.wait(timeout=200) == 0
    finally:
        process.kill()
        assert process.stdin is not None
        process.stdin.close()
    done = store.job(job.id)
    assert done.status == "failed"
    assert done.error is not None
    assert re.search(match, done.error["message"]), done.error
    assert str(tmp_path) not in done.error["message"]
    assert not canary.exists()


def test_a_key_is_looked_up_and_compared_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long it takes then tells nothing of a key's text."""
    store = store_of(tmp_path)
    made, text = store.create_key("ann")
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    asked_: list[str] = []
    with store.reading() as connection:
        connection.set_trace_callback(asked_.append)
    found = store.key_of(text)
    assert found is not None
    assert found.id == made.id
    digest = hashlib.sha256(text.encode()).digest()
    assert compared == [(digest, digest)]
    words = " ".join(asked_)
    assert digest.hex() in words.lower()
    assert text not in words
    assert store.key_of(text[:-1]) is None


@pytest.mark.parametrize("path", ["/v1/files", "/v1/fine_tuning/jobs"])
def test_a_client_that_drips_is_ended_and_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(app, "Rules", partial(Rules, body_s=1.5))
    form = "multipart/form-data; boundary=b" if path == "/v1/files" else "application/json"
    with serving(tmp_path) as served:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.key}\r\n"
            f"Content-Type: {form}\r\nContent-Length: 100000\r\n\r\n"
        )
        drips = [socket.create_connection(("127.0.0.1", served.service.port)) for _ in range(60)]
        over = threading.Event()

        def drip() -> None:
            for one in drips:
                one.sendall(head.encode())
            while not over.wait(0.1):
                for one in drips:
                    try:
                        one.sendall(b"-")
                    except OSError:
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        began = time.monotonic()
        headers = {"authorization": f"Bearer {served.key}"}
        while time.monotonic() - began < 1.0:
            answer = httpx2.get(f"{served.service.base_url}/models", headers=headers, timeout=5)
            assert answer.status_code == 200
        for one in drips:
            one.settimeout(20)
            assert b" 408 " in one.recv(4096).partition(b"\r\n")[0]
        over.set()
        dripping.join()
        for one in drips:
            one.close()
        kept = served.store.root / "files"
        assert not kept.is_dir() or not list(kept.iterdir())
