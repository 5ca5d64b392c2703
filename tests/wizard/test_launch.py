"""A script that is run: looked at after a while, ended when the user says so, and told of when memory ran out."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from hone.engine.nvidia import Answer, CardHere, Holder
from hone.wizard.advice import after_run, before_run
from hone.wizard.launch import Ended, commands, launch
from hone.wizard.outlook import outlook, progress
from hone.wizard.progress import History
from tests.wizard.complete import complete

HOLDER = Holder(4321, "python", 30_000)
CARD = CardHere(0, "H200", 143_771, 130_000, 13_771, 0, "580.1", (HOLDER,))
TAKEN = Answer((CARD,), None, has_tool=True)
NONE = Answer((), None, has_tool=False)


def never() -> bool:
    raise AssertionError("looked in too early")


def run(code: str, folder: Path) -> Ended:
    return launch([sys.executable, "-c", code], folder, never)


def test_a_script_that_ends_well(tmp_path: Path) -> None:
    ended = run("open('here', 'w')", tmp_path)
    assert (ended.code, ended.is_memory) == (0, False)
    assert (tmp_path / "here").exists()


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(5)",
        "raise MemoryError",
        "import sys; sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB')",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
def test_memory_is_recognised(tmp_path: Path, code: str) -> None:
    assert run(code, tmp_path).is_memory


def test_another_failure_is_not_memory(tmp_path: Path) -> None:
    ended = run("raise ValueError('no')", tmp_path)
    assert (ended.code, ended.is_memory) == (1, False)


def test_errors_are_passed_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("import sys; print('out'); sys.stderr.write('err\\n' * 20_000)", tmp_path)
    told = capfd.readouterr()
    assert told.out == "out\n"
    assert told.err == "err\n" * 20_000


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_look_after_a_while(tmp_path: Path, goes_on: bool) -> None:
    (tmp_path / "s.py").write_text(
        "import time, pathlib\npathlib.Path('begun').touch()\n"
        "while not pathlib.Path('looked').exists(): time.sleep(0.02)\n"
        "time.sleep(0 if pathlib.Path('on').exists() else 60)\n"
    )
    if goes_on:
        (tmp_path / "on").touch()

    def look() -> bool:
        (tmp_path / "looked").touch()
        return goes_on

    ended = launch([sys.executable, "s.py"], tmp_path, look, patience_seconds=1.0)
    assert ended.code == (0 if goes_on else -signal.SIGINT)
    assert ended.seconds < 50


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        launch(["/nowhere/python"], tmp_path, never)


def test_this_interpreter_is_always_offered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commands("s.py") == {"python": [sys.executable, "s.py"]}
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    assert commands("s.py")["uv"] == ["uv", "run", "python", "s.py"]


def test_the_history_tells_how_far_it_is(tmp_path: Path) -> None:
    answers = complete(tmp_path, "jsonl", rows=50, backend="local")
    file = tmp_path / ".hone/sft-project/models/agent-001/history.jsonl"
    file.parent.mkdir(parents=True)
    row = {"sft/gradient_step": 1, "sft/loss/train": 1.25}
    file.write_text(json.dumps(row) + "\n")
    history = History.of(answers)
    assert history.steps() == (0, None), "what was there before is not this run's"
    assert "before its first" in progress(answers, *history.steps())
    with file.open("a") as out:
        out.write(
            json.dumps(row) + "\n" + json.dumps({"loss/train": 2}) + "\n" + json.dumps(row)[:9]
        )
    assert (
        progress(answers, *history.steps()) == "it runs still: gradient step 1 of 250, loss 1.2500"
    )
    remote = complete(tmp_path, "jsonl", backend="serverless")
    assert "service" in progress(remote, 0, None)


def test_advice_on_a_gpu_names_the_setting_and_the_process(tmp_path: Path) -> None:
    answers = complete(tmp_path, "jsonl", backend="local")
    said = "\n".join(after_run(answers, Ended(5, is_memory=True, seconds=1), TAKEN))
    assert "lower gpu_memory_utilization from 0.7, e.g. to 0.5" in said
    assert "process 4321 (python) holds 29.3 GiB" in said
    assert "kill 4321" in said


def test_advice_without_a_gpu_names_none(tmp_path: Path) -> None:
    answers = complete(tmp_path, "jsonl", backend="local")
    said = "\n".join(after_run(answers, Ended(-9, is_memory=True, seconds=1), NONE))
    assert "smaller base model" in said
    assert "gpu_memory" not in said
    assert after_run(answers, Ended(0, is_memory=False, seconds=1), TAKEN) == []
    assert "exit code 3" in after_run(answers, Ended(3, is_memory=False, seconds=1), TAKEN)[0]


def test_memory_that_others_hold_is_told_before_a_local_run_only(tmp_path: Path) -> None:
    local, remote = (complete(tmp_path, "jsonl", backend=name) for name in ("local", "serverless"))
    assert "13.4 of 140.4 GiB are free" in before_run(local, TAKEN)[0]
    assert before_run(remote, TAKEN) == []
    assert before_run(local, NONE) == []
    free = CardHere(0, "H200", 143_771, 771, 143_000, 0, "580.1", ())
    assert before_run(local, Answer((free,), None, has_tool=True)) == []


@pytest.mark.parametrize(
    ("rows", "warned"), [(1, "never reaches its peak"), (2, "all of it is warmup"), (3, None)]
)
def test_a_warmup_without_end_is_a_warning(tmp_path: Path, rows: int, warned: str | None) -> None:
    said = outlook(complete(tmp_path, "jsonl", rows=rows))
    assert len(said) == (1 if warned is None else 2)
    if warned is not None:
        assert warned in said[1]
