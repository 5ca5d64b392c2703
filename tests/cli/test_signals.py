"""Ctrl-C on a terminal and SIGTERM from a scheduler: saved, said, the right exit code, and resumable."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.folders import chat_rows, model_folder

CODE = "import sys\nfrom hone.cli.main import main\nsys.exit(main())"
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    model_folder(folder / "model")
    chat_rows(folder / "rows.jsonl")
    return folder


def command(place: Path, output: str, *more: str) -> list[str]:
    quick = ["train.precision=fp32", "compute.micro_batch_tokens=512", "train.batch_size=4"]
    rows, model = str(place / "rows.jsonl"), str(place / "model")
    words = ["train", rows, "--model", model, "--output", str(place / output), *quick, *more]
    return [sys.executable, "-c", CODE, *words]


def environment(place: Path) -> dict[str, str]:
    extra = {"HONE_CACHE": str(place / "cache"), "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    return {name: value for name, value in {**os.environ, **extra}.items() if name != "CI"}


def read_until(descriptor: int, wanted: str | None, process: subprocess.Popen[bytes]) -> str:
    """What the terminal shows until it matches `wanted`, or until the process is gone."""
    shown, end = b"", time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                shown += os.read(descriptor, 1 << 16)
            except OSError:  # the other end is closed
                break
        elif process.poll() is not None:
            break
        if wanted is not None and re.search(wanted, shown.decode(errors="replace")):
            break
    return shown.decode(errors="replace")


@pytest.mark.fault(8)
def test_ctrl_c_on_a_terminal(place: Path) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command(place, "typed", "train.max_steps=5000"),
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment(place),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(terminal)
    try:
        begun = r" [1-9]\d*/5000 "
        assert re.search(begun, read_until(controller, begun, process))
        os.write(controller, b"\x03")
        shown = read_until(controller, None, process)
        assert process.wait(PATIENCE_SECONDS) == 130, shown
    finally:
        process.kill()
        os.close(controller)
    assert "stopped: interrupted; saved" in shown
    assert "continue with: hone train" in shown
    assert "\x1b[?25h" in shown, "the cursor is shown again"
    assert "Traceback" not in shown


@pytest.mark.fault(8)
def test_the_terminal_goes(place: Path) -> None:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command(place, "left", "train.max_steps=5000"),
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment(place),
        start_new_session=True,
        preexec_fn=lambda: (
            signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup leaves it ignored
            fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        ),
    )  # fmt: skip
    os.close(terminal)
    try:
        begun = r" [1-9]\d*/5000 "
        assert re.search(begun, read_until(controller, begun, process))
        os.close(controller)
        assert process.wait(PATIENCE_SECONDS) == 143
    finally:
        process.kill()
    lines = (place / "left" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    assert (last["event"], last["signal"]) == ("stopped", "SIGHUP")
    assert (place / "left" / "checkpoints").is_dir()


@pytest.mark.fault(8)
def test_sigterm_in_a_pipe_then_the_same_command_goes_on(place: Path) -> None:
    words = command(place, "asked", "train.max_steps=60", "--json")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment(place)) as run:
        assert run.stdout is not None
        events: list[dict[str, object]] = []
        for line in run.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "step" and events[-1]["step"] == 3:
                with contextlib.suppress(ProcessLookupError):
                    run.send_signal(signal.SIGTERM)
    assert run.returncode == 143
    assert [event["event"] for event in events[-2:]] == ["stopped", "error"]
    assert events[-1]["exit_code"] == 143
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=environment(place)
    )
    assert done.returncode == 0, done.stderr
    again = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [event["step"] for event in again if event["event"] == "step"]
    saved = next(event["step"] for event in again if event["event"] == "resumed")
    assert steps == list(range(saved + 1, 61))
    assert saved >= 3
    assert again[-1]["event"] == "finished"
