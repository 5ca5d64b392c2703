"""TensorBoard beside runs: started once, on this machine alone, ended by its own number and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from hone.errors import ConfigError, EnvironmentFault
from hone.recipes.board import read_board, start_board, stop_board

pytest.importorskip("tensorboard")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_it_is_started_once_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "planted-secret")
    port = free_port()
    board, is_new = start_board(Path("outputs"), port)
    try:
        assert is_new
        with urllib.request.urlopen(board.url, timeout=10) as answer:
            assert answer.status == 200
        listening = subprocess.run(["ss", "-ltn"], capture_output=True, text=True, check=False).stdout  # fmt: skip
        assert not listening or f"127.0.0.1:{port}" in listening
        assert b"planted-secret" not in Path(f"/proc/{board.pid}/environ").read_bytes()
        assert start_board(Path("outputs"), port) == (board, False)
        with pytest.raises(ConfigError, match="runs already"):
            start_board(Path("others"), port)
    finally:
        ended = stop_board()
    assert ended == board
    assert not board.is_alive
    assert read_board() is None
    assert stop_board() is None


def test_a_port_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        with pytest.raises(EnvironmentFault, match="in use"):
            start_board(Path("outputs"), one.getsockname()[1])
    assert list(tmp_path.iterdir()) == []


def test_another_process_of_that_number_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of yesterday names a number that somebody else has today."""
    monkeypatch.chdir(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        told = {"pid": other.pid, "began": 1, "port": 6006, "logdir": "x"}
        (tmp_path / ".tensorboard.json").write_text(json.dumps(told))
        assert stop_board() is None
        assert other.poll() is None
        assert not (tmp_path / ".tensorboard.json").exists()
        os.kill(other.pid, 9)


def test_a_file_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("", "[]", "{}", '{"pid": "x"}'):
        (tmp_path / ".tensorboard.json").write_text(text)
        assert read_board() is None
        assert stop_board() is None
