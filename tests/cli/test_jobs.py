"""`hone jobs` as a user types it, against a service that keeps the wire."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone.cli.job_screen import JobScreen, event_line
from hone.cli.main import run
from hone.cli.pairs import nested, pairs
from hone.errors import ConfigError
from tests.backends.fake_service import BASE, KEY, FakeService, fake_service
from tests.folders import chat_rows


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    with fake_service() as running:
        monkeypatch.setenv("HONE_BASE_URL", running.url)
        monkeypatch.setenv("HONE_API_KEY", KEY)
        yield running


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return chat_rows(tmp_path / "rows.jsonl", 6)


def said(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run(["jobs", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_job_from_its_rows_to_its_end(
    service: FakeService, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "create",
        rows,
        "train.lr=1e-4",
        'tuning.lora.target_modules=["q_proj"]',
        "--model",
        BASE,
    ]
    words += ["--validation", rows, "--epochs", 2, "--suffix", "mine", "--metadata", "task=support"]
    job = said(capsys, *words).strip()
    (body,) = service.state.bodies
    assert body["method"]["supervised"]["hyperparameters"] == {"n_epochs": 2}
    assert body["x_hone"]["config"] == {
        "train": {"lr": 1e-4},
        "tuning": {"lora": {"target_modules": ["q_proj"]}},
    }
    assert (body["suffix"], body["metadata"]) == ("mine", {"task": "support"})
    assert body["validation_file"] != body["training_file"]
    assert service.state.files[body["training_file"]] == rows.read_bytes()
    watched = said(capsys, "watch", job)
    assert "Step 3/3: training loss=0.33" in watched
    assert watched.splitlines()[-1] == f"succeeded, it answers as ft:{BASE}:org::abcdefgh"
    logged = said(capsys, "logs", job).splitlines()
    assert [line.split(maxsplit=2)[2] for line in logged] == [
        f"Created fine-tuning job: {job}",
        "a row was dropped",
        *(f"Step {i}/3: training loss={1 / i:.2f}" for i in (1, 2, 3)),
        "The job has successfully completed",
    ]
    events = [json.loads(line) for line in said(capsys, "logs", job, "--json").splitlines()]
    assert [event["message"] for event in events] == [line.split(maxsplit=2)[2] for line in logged]


def test_a_list_is_read_page_by_page(
    service: FakeService, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no jobs" in said(capsys, "list")
    file = said(capsys, "create", rows, "--model", BASE, "--json")
    file = json.loads(file)["training_file"]
    for i in range(4):
        said(capsys, "create", file, "--model", BASE, "--metadata", f"turn={i % 2}")
    assert len(said(capsys, "list", "--limit", 3).splitlines()) == 4
    table = said(capsys, "list")
    newest = [line.split()[0] for line in table.splitlines()[1:]]
    assert newest == [job["id"] for job in reversed(list(service.state.jobs.values()))]
    listed = json.loads(said(capsys, "list", "--json", "--metadata", "turn=1"))["data"]
    assert [job["metadata"] for job in listed] == [{"turn": "1"}] * 2
    assert [path for method, path in service.state.asked if path == "/files"] == ["/files"]


def test_long_logs_come_whole_and_in_order(
    service: FakeService, capsys: pytest.CaptureFixture[str], rows: Path
) -> None:
    service.state.holds.clear()
    job = said(capsys, "create", rows, "--model", BASE).strip()
    for i in range(1234):
        service.state.say(job, f"number {i}")
    lines = said(capsys, "logs", job).splitlines()
    numbers = [int(line.rpartition(" ")[2]) for line in lines if "number" in line]
    assert numbers == list(range(1234))


def test_cancel_pause_and_resume(
    service: FakeService, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.state.holds.clear()
    job = said(capsys, "create", rows, "--model", BASE).strip()
    assert said(capsys, "pause", job) == f"{job}: paused\n"
    assert said(capsys, "resume", job) == f"{job}: queued\n"
    assert json.loads(said(capsys, "cancel", job, "--json"))["status"] == "cancelled"
    assert run(["jobs", "cancel", job]) == 2
    assert "the job has cancelled" in capsys.readouterr().err
    assert run(["jobs", "watch", job]) == 6
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "cancelled"
    assert "the job was cancelled" in told.err


def test_a_failure_says_why_and_in_its_exit_code(
    service: FakeService, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.state.error = {
        "code": "out_of_memory",
        "message": "72 GiB\x1b[2J are needed",
        "param": None,
    }
    assert run(["jobs", "create", str(rows), "--model", BASE, "--watch"]) == 5
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "failed"
    assert "72 GiB" in told.err
    assert "\x1b[2J" not in told.err + told.out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["create", "nowhere.jsonl", "--model", BASE], 3, "no such file of rows"),
        (["create", "file-unknown", "--model", BASE], 2, "training_file"),
        (["create", "file-x", "lr", "--model", BASE], 2, "no KEY=VALUE"),
        (["create", "file-x", "train.lr=1", "train.lr=2", "--model", BASE], 2, "said twice"),
        (["create", "file-x", "train=1", "train.lr=2", "--model", BASE], 2, "value of its own"),
        (["create", "file-x", "a=[1", "--model", BASE], 2, "no JSON"),
        (["create", "file-x"], 2, "--model"),
        (["watch", "ftjob-unknown"], 2, "No such object"),
        (["logs", "../../files"], 2, "No such object"),
        (["list", "--base-url", "ftp://x"], 2, "base_url"),
        (["list", "--api-key-env", "NOT_SET_HERE"], 4, "NOT_SET_HERE is not set"),
    ],
)
def test_what_cannot_be_is_said(
    service: FakeService, words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["jobs", *words]) == code
    assert told in capsys.readouterr().err


def test_no_service_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HONE_API_KEY", "k")
    monkeypatch.setattr("hone.cli.jobs._PATIENCE_SECONDS", 0.0)
    assert run(["jobs", "list", "--base-url", "http://127.0.0.1:9"]) == 6
    assert "`hone service` starts one" in capsys.readouterr().err


def test_ctrl_c_leaves_the_job_running(service: FakeService, rows: Path) -> None:
    service.state.holds.clear()
    command = [
        sys.executable,
        "-m",
        "hone",
        "jobs",
        "create",
        str(rows),
        "--model",
        BASE,
        "--watch",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert "Created fine-tuning job" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    (job,) = service.state.jobs
    assert process.returncode == 130
    assert f"`hone jobs watch {job}` looks again" in errors
    assert service.state.jobs[job]["status"] == "running"


def test_watching_survives_a_service_that_restarts(
    service: FakeService, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.state.holds.clear()
    job = said(capsys, "create", rows, "--model", BASE).strip()
    service.state.faults += [("GET", "/events", "drop")] * 3

    def go_on() -> None:
        while service.state.faults:
            time.sleep(0.02)
        service.state.holds.set()

    thread = threading.Thread(target=go_on)
    thread.start()
    assert run(["jobs", "watch", job]) == 0
    thread.join()
    told = capsys.readouterr()
    assert "trying again" in told.err
    assert "answers again" in told.err
    assert told.out.count("training loss") == 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def metrics(step: int, of: int) -> dict[str, Any]:
    data = {"step": step, "total_steps": of}
    return {"type": "metrics", "message": f"Step {step}/{of}", "data": data, "created_at": 0}


def test_steps_move_on_one_line_of_a_terminal_and_are_few_elsewhere() -> None:
    for stream, ends in ((Terminal(), 1), (io.StringIO(), 10)):
        screen = JobScreen(as_json=False, stream=stream)
        for step in range(1, 101):
            screen.show(metrics(step, 100))
        screen.show({"type": "message", "message": "done", "created_at": 0})
        text = stream.getvalue()
        assert "Step 100/100" in text
        assert text.count("\n") in (ends + 1, ends + 2)
        assert text.endswith("done\n")


def test_what_a_stranger_says_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in event_line({"message": "\x1b[2J\u202e", "created_at": 0, "level": "warn"})


def test_values_are_read_as_a_configuration_reads_them() -> None:
    told = nested(pairs(["a.b=1e-4", "a.c=true", "d=007x", "e=a=b", 'f={"g": [1]}'], "x"))
    assert told == {"a": {"b": 1e-4, "c": True}, "d": "007x", "e": "a=b", "f": {"g": [1]}}
    with pytest.raises(ConfigError, match="no KEY=VALUE"):
        pairs(["=1"], "x")
