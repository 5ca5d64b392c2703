"""`hone chat` as a user types it: once, by a pipe, on a terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hone.cli.main import run
from tests.folders import model_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def say(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))


def test_once_prints_the_reply_and_nothing_else(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["chat", str(model), "--once", "the red cat", "--max-tokens", "6"]
    assert run(words) == 0
    plain = capsys.readouterr()
    assert run([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert plain.out == told["reply"] + "\n"
    assert plain.err == ""
    assert told["event"] == "reply"
    assert 0 < told["reply_tokens"] <= 6
    assert told["finish"] in ("stop", "length")


def test_each_line_of_a_pipe_is_a_turn(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, "the red cat", "", "the dog", "/reset", "the red cat", "/exit", "not heard")
    assert run(["chat", str(model), "--json", "--max-tokens", "4", "--system", "a bird"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == 3
    assert told[1]["prompt_tokens"] > told[0]["prompt_tokens"]
    assert told[2]["reply"] == told[0]["reply"]
    assert told[2]["prompt_tokens"] == told[0]["prompt_tokens"]


def test_a_turn_too_long_for_the_model_does_not_end_the_conversation(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, "the cat " * 400, "the dog")
    assert run(["chat", str(model), "--json", "--max-tokens", "4"]) == 0
    done = capsys.readouterr()
    assert "the model takes 256" in done.err
    assert len(done.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere/at/all"], 4, "no such model"),
        (["{model}", "--max-tokens", "0"], 2, "--max-tokens"),
        (["{model}", "--top-p", "2"], 2, "top_p"),
        (["{model}", "--compare", "--once", "a"], 2, "nothing to compare"),
    ],
)
def test_refusals(
    model: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = [word.format(model=model) for word in words]
    assert run(["chat", *typed]) == code
    assert said in capsys.readouterr().err


def test_a_terminal_gets_a_prompt_and_ctrl_c_stops_only_the_reply(model: Path) -> None:
    ours, theirs = pty.openpty()
    code = "import sys\nfrom hone.cli.main import run\nsys.exit(run(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "chat", str(model), "--max-tokens", "230"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "NO_COLOR": "1", "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    seen = _until(ours, b"you> ")
    assert b"/reset forgets" in seen
    os.write(ours, b"the red cat\n")
    _until(ours, b"tuned> ")
    process.send_signal(signal.SIGINT)
    assert b"you> " in _until(ours, b"you> ")
    os.write(ours, b"/exit\n")
    assert process.wait(timeout=60) == 0
    os.close(ours)


def _until(terminal: int, wanted: bytes) -> bytes:
    seen = b""
    end = time.monotonic() + 60
    while wanted not in seen:
        assert time.monotonic() < end, seen
        seen += os.read(terminal, 4096)
    return seen
