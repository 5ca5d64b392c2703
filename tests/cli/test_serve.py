"""`hone serve` as a user types it: what it prints works as printed, and it ends with Ctrl-C."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hone.cli.main import run
from hone.cli.serve import place_of
from hone.serving import packages
from hone.serving.open import snippets
from tests.folders import model_folder


def test_the_printed_lines_work_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "it's a model")
    command = [sys.executable, "-m", "hone", "serve", str(base), "--port", "0", "--json"]
    surroundings = {**os.environ, "HONE_API_KEY": "k-1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=surroundings)
    try:
        assert server.stdout is not None
        told = json.loads(server.stdout.readline())
        assert told["models"] == ["it's a model"]
        how = snippets(told["base_url"], told["models"][0], has_key=True)
        python = how["python"].replace('"Hello!"}]', '"Hello!"}], max_tokens=4, temperature=0')
        said = subprocess.run(
            [sys.executable, "-c", python], capture_output=True, env=surroundings, check=True
        )
        words = how["curl"].replace('"messages"', '"max_tokens": 4, "temperature": 0, "messages"')
        words = words.replace("$HONE_API_KEY", "k-1")
        answer = subprocess.run(shlex.split(words), capture_output=True, check=True)
        content = json.loads(answer.stdout)["choices"][0]["message"]["content"]
        assert said.stdout.decode().rstrip("\n") == content.rstrip("\n")
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("team/agent", "{root}/.hone/team/models/agent"),
        ("team/agent@1", "{root}/.hone/team/models/agent@1"),
        ("a=team/agent@1", "a={root}/.hone/team/models/agent@1"),
        ("team/a=b", "{root}/.hone/team/models/a=b"),
        ("x=team/a=b", "x={root}/.hone/team/models/a=b"),
        ("team/other", "team/other"),
        ("team/begun", "team/begun"),
        ("team/here", "team/here"),
        ("agent", "agent"),
    ],
)
def test_a_trained_model_is_named_by_project_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, place: str
) -> None:
    """From any folder of the repository; a path that exists comes first, and what has no checkpoint is not it."""
    (tmp_path / ".git").mkdir()
    for name in ("agent", "a=b", "here"):
        folder = tmp_path / ".hone" / "team" / "models" / name / "checkpoints" / "0001"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    (tmp_path / ".hone" / "team" / "models" / "begun" / "checkpoints").mkdir(parents=True)
    (tmp_path / "below" / "team" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "below")
    assert place_of(typed) == place.format(root=tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing/there"], 4, "nothing/there"),
        (["{m}", "--host", "0.0.0.0"], 2, "no API key"),
        (["{m}", "x={m}", "x={m}"], 2, "two of them have the name 'x'"),
        (["a@b={m}"], 2, "holds no @"),
        (["{m}", "--engine", "vllm"], 4, "vLLM is not installed"),
        (["{m}", "--engine", "other"], 2, "other"),
    ],
)
def test_what_cannot_be_served_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    base = model_folder(tmp_path / "m")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("HONE_API_KEY", raising=False)
    asked: list[Any] = [word.format(m=base) for word in words]
    assert run(["serve", *asked, "--port", "0"]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["serve", "m"], ["service", "--model", "m"]])
def test_a_server_without_its_packages_says_what_to_install(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    assert run(words) == 4
    said = capsys.readouterr().err
    assert "uvicorn" in said
    assert "hone[service]" in said
