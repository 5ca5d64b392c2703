"""`hone service`: keys are shown once, and a service says where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.cli.main import run
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
