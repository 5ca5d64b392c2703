"""The server as a child of another program: it says where it is, sees what comes, and does not stay behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest

from hone.errors import HoneError
from hone.serving.child import ServerProcess
from tests.folders import model_folder
from tests.infer.test_shelf import adapter

ASK = [{"role": "user", "content": "the red cat"}]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"


def wait_until_gone(pid: int) -> bool:
    end = time.monotonic() + 60
    while not gone(pid) and time.monotonic() < end:
        time.sleep(0.1)
    return gone(pid)


def test_a_child_serves_new_checkpoints_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cr3t-value")
    monkeypatch.setenv("HONE_WEBHOOK_SECRET", "s3cr3t-value")
    base = model_folder(tmp_path / "base")
    made = adapter(base, tmp_path / "made", 1)
    folder = tmp_path / "agent"
    log = tmp_path / "log"
    with ServerProcess(folder, base=str(base), name="agent", key="k", log=log) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="k")

        def ask(name: str) -> str | None:
            reply = client.chat.completions.create(
                model=name, messages=ASK, max_tokens=8, temperature=0
            )
            return reply.choices[0].message.content

        before = ask("agent")
        assert ask("agent@0") == before
        shutil.copytree(made, folder / "checkpoints" / "0001")
        assert ask("agent") == ask("agent@1") != before
        assert [model.id for model in client.models.list()] == ["agent", "agent@0", "agent@1"]
        command = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")
        assert b"k" not in command
        surroundings = Path(f"/proc/{server.pid}/environ").read_bytes()
        assert b"s3cr3t-value" not in surroundings
        pid = server.pid
    assert gone(pid)
    with pytest.raises(HoneError, match="did not start"):
        ServerProcess(folder, base=str(tmp_path / "nothing"), name="agent")


def test_a_child_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom hone.serving.child import ServerProcess\n"
        f"server = ServerProcess(Path({str(tmp_path)!r}), base={str(base)!r}, name='m')\n"
        "print(server.pid, flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until_gone(pid)
