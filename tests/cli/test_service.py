"""`hone service`: keys are shown once, and a service says where it is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hone.cli.main import run
from hone.service.server import Service
from hone.service.store import Store


def test_keys_are_made_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ["service", "--root", str(tmp_path), "keys"]
    assert run([*root, "create", "ann", "--max-running", "3", "--quota", "files=7"]) == 0
    text = capsys.readouterr().out.strip()
    key = Store(tmp_path).key_of(text)
    assert key is not None
    assert (key.owner, key.max_running, key.limits.files) == ("ann", 3, 7)
    assert run([*root, "list", "--json"]) == 0
    listed = capsys.readouterr().out
    assert json.loads(listed)["keys"][0]["owner"] == "ann"
    assert text not in listed
    assert run([*root, "revoke", key.id]) == 0
    assert Store(tmp_path).key_of(text) is None
    assert run([*root, "revoke", key.id]) == 2


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["keys", "create", "An Owner"], "cannot name an owner"),
        (["keys", "create", "ann", "--quota", "file=1"], "did you mean 'files'"),
        (["keys", "create", "ann", "--quota", "files=x"], "NAME=COUNT"),
        ([], "no base model is named"),
        (["--model", "a:b=x"], "does not name a model"),
        (["--model", "a=x", "--host", "0.0.0.0"], "--allow-host"),
        (["--model", "a=x", "--port", "0", "--webhook", "ftp://x"], "is no address"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], match: str
) -> None:
    assert run(["service", "--root", str(tmp_path), *words]) == 2
    assert match in capsys.readouterr().err


def test_the_audit_log_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    at = [1_600_000_000]
    store.now = lambda: at[0]
    ann = store.create_key("ann")[0]
    bob = store.create_key("bob")[0]
    at[0] = int(time.time())
    store.note(ann, "file.created", "file-1", "a\x1b[31m")
    store.note(bob, "file.created", "file-2")
    words = ["service", "--root", str(tmp_path), "audit"]

    def told(*more: str) -> list[str]:
        assert run([*words, *more, "--json"]) == 0
        return [json.loads(line)["subject"] for line in capsys.readouterr().out.splitlines()]

    assert told() == [ann.id, bob.id, "file-1", "file-2"]
    assert told("--since", "2h") == ["file-1", "file-2"]
    assert told("--since", "2021-01-31T10:00", "--key", "ann") == ["file-1"]
    assert told("--key", bob.id) == [bob.id, "file-2"]
    assert told("--key", "nobody") == []
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert f"ann ({ann.id})  file.created  file-1  a?[31m" in printed
    assert run([*words, "--since", "yesterday"]) == 2
    assert "--since 'yesterday' is no time" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_a_first_key_is_shown_on_a_terminal_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:  # fmt: skip
    monkeypatch.setattr(Service, "run", lambda _: None)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    root = str(tmp_path / "a root")
    words = ["service", "--root", root, "--model", "a=x", "--port", "0", "--no-worker"]
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert ("sk-hone-" in printed) is terminal
    assert len(Store(Path(root)).list_keys()) == terminal
    assert f"hone service --root '{root}' keys create NAME" in printed
    assert ("no key yet" in printed) is not terminal
