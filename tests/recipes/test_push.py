"""Publishing: asked first, private by default, the token shown nowhere, and nothing but model, tokenizer and card."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from hone.errors import ConfigError
from hone.recipes.push import is_ready, prepare
from tests.recipes.fake_publishing import TOKEN, FakePublishing, fake_publishing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def parcel(tmp_path: Path) -> Path:
    """A folder as export writes one, with what must not go up beside it."""
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "events.jsonl").write_text("secret rows\n")
    (folder / ".env").write_text("KEY=1")
    return folder


def environment(hub: FakePublishing, token: str | None = TOKEN) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HONE_"))}
    told = {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT / "src")}
    return kept | told | ({} if token is None else {"HF_TOKEN": token})


def push(
    hub: FakePublishing, *words: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hone", "push", *words], env=environment(hub, token), capture_output=True,
        text=True, stdin=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip


def test_a_script_says_yes_and_the_repository_is_private(parcel: Path) -> None:
    with fake_publishing() as hub:
        unasked = push(hub, str(parcel), "me/first")
        assert unasked.returncode == 2
        assert "--yes" in unasked.stderr
        assert not hub.repos
        done = push(hub, str(parcel), "me/first", "--yes")
        assert done.returncode == 0, done.stderr
        assert f"{hub.address}/me/first" in done.stdout
        assert "stays here: .env, events.jsonl" in done.stdout
        repo = hub.repos["me/first"]
        assert repo["private"] is True
        sent = {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
        assert set(repo["files"]) == sent
        assert repo["files"]["adapter_model.safetensors"] == b"weights"
        again = push(hub, str(parcel), "me/first", "--yes", "--public", "--json")
        said = json.loads(again.stdout)
        assert said["private"] is True
        assert said["new"] is False
        assert "keeps its visibility" in again.stderr
        for text in (done.stdout, done.stderr, again.stdout, again.stderr, unasked.stderr):
            assert TOKEN not in text


def test_public_only_where_it_is_said_and_a_wrong_token_is_refused(parcel: Path) -> None:
    with fake_publishing() as hub:
        assert push(hub, str(parcel), "me/open", "--public", "--yes").returncode == 0
        assert hub.repos["me/open"]["private"] is False
        wrong = push(hub, str(parcel), "me/other", "--yes", token="hf_other")
        assert wrong.returncode == 6
        assert "hf_other" not in wrong.stderr + wrong.stdout
        assert "me/other" not in hub.repos
        absent = push(hub, str(parcel), "me/other", "--yes", token=None)
        assert absent.returncode == 2
        assert "HF_TOKEN" in absent.stderr
        assert push(hub, str(parcel), "not a name", "--yes").returncode == 2


def test_the_question_is_answered_with_no_by_default(parcel: Path) -> None:
    with fake_publishing() as hub:
        for answer, code in (("", 1), ("n", 1), ("y", 0)):
            child = pexpect.spawn(
                sys.executable, ["-m", "hone", "push", str(parcel), "me/asked"], env=environment(hub), encoding="utf-8",
                timeout=60,
            )  # fmt: skip
            child.expect(re.escape("Publish to me/asked? [y/N]"))
            assert "adapter_model.safetensors" in child.before
            assert "private: you" in child.before
            assert not hub.repos
            child.sendline(answer)
            child.expect(pexpect.EOF)
            child.close()
            assert child.exitstatus == code
        assert hub.repos["me/asked"]["private"] is True


def test_a_run_is_no_folder_to_send_as_it_stands(
    parcel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_ready(parcel)
    (parcel / "run.json").write_text("{}")
    assert not is_ready(parcel)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        prepare(str(parcel), "me/name")
