"""Every code block of the two ART documents, as `hone` and as `hone.art`, on a tiny model of this machine."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from hone.backends import local
from hone.backends.local_server import Server
from tests.art import scripts
from tests.backends.fake_service import BASE, KEY, fake_service
from tests.backends.in_process import InProcess
from tests.folders import chat_rows, model_folder

WIZARD, SKILL = "art_train_sft_wizard.md", "art_train_sft_skill.md"
FACES = ["hone.art", "hone"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("base") / "model")


class Teacher(BaseHTTPRequestHandler):
    """Answers every chat request with the same reply."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer teachers-key"
        message = {"role": "assistant", "content": "one two three"}
        told = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def teacher() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Teacher)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


class Shown:
    """A server that is only shown."""

    base_url = "http://127.0.0.1:9/v1/"
    pids: list[int] = []  # noqa: RUF012 - the protocol's name

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


def names(base: Path, tmp_path: Path, teacher: str) -> dict[str, str]:
    return {
        "RUN_NAME": "agent-001",
        "PROJECT_NAME": "sft-project",
        "BASE_MODEL": str(base),
        "STUDENT_BASE_MODEL": str(base),
        "FILE_PATH": str(chat_rows(tmp_path / "rows.jsonl", 4)),
        "EPOCHS": "2",
        "BATCH_SIZE": "2",
        "PEAK_LR": "2e-4",
        "SCHEDULE_TYPE": "linear",
        "WARMUP_RATIO": "0.1",
        "LEARNING_RATE": "1e-5",
        "USER_MESSAGE": "the cat",
        "ASSISTANT_RESPONSE": "runs and sings",
        "API_KEY_ENV_VAR": "TEACHER_API_KEY",
        "TEACHER_API_BASE": teacher,
        "TEACHER_MODEL": "large",
        "PROMPT_1": "the dog",
        "PROMPT_2": "the bird",
        "TOOLS_OR_NONE": "None",
    }


def written(shared: Path, which: str, *, serverless: bool = False) -> str:
    """A whole script, as the documents say that it is put together."""
    if which.startswith("wizard"):
        _, _, post, jsonl, inline, distillation = scripts.fenced(scripts.document(shared, WIZARD))
        script = {
            "wizard-jsonl": jsonl,
            "wizard-inline": inline,
            "wizard-distillation": distillation,
        }
        return scripts.with_block(script[which], post)
    text = scripts.document(shared, SKILL)
    post = scripts.indented(scripts.between(text, "step = await model", "Backend setup"))
    begins, ends = (
        ('"""SFT training script', "Distillation pattern")
        if which == "skill-jsonl"
        else ('"""Distillation SFT script', "Step 7")
    )
    script = scripts.indented(scripts.between(text, begins, ends))
    places = (
        ("from art.serverless", "Note: _internal")
        if serverless
        else ("from art.local", "ServerlessBackend:")
    )
    setup = scripts.indented(scripts.between(text, *places))
    importing, _, setting = setup.partition("\n")
    script = script.replace("<BACKEND_IMPORT>", importing)
    return scripts.with_block(scripts.filled_in(script, "BACKEND_SETUP", setting.rstrip()), post)


@pytest.mark.parametrize(
    ("which", "face", "step"),
    [
        pytest.param(which, face, step, marks=[pytest.mark.slow] if is_slow else [])
        for which, step, slow_faces in [
            ("wizard-jsonl", 1, {"hone"}),
            ("wizard-inline", 1, {"hone.art"}),
            ("wizard-distillation", 1, FACES),
            ("skill-jsonl", 1, FACES),
            ("skill-distillation", 2, {"hone"}),
        ]
        for face in FACES
        for is_slow in [face in slow_faces]
    ],
)
def test_a_script_runs(
    shared: Path,
    base: Path,
    tmp_path: Path,
    teacher: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    which: str,
    face: str,
    step: int,
) -> None:
    pytest.importorskip("openai")
    pytest.importorskip("dotenv")
    code = scripts.ported(
        scripts.filled(written(shared, which), names(base, tmp_path, teacher)), face
    )
    script = tmp_path / "sft_train.py"
    script.write_text(code)
    served: list[Shown] = []

    def start(folder: Path, **about: Any) -> Server:
        assert folder.name == about["name"] == "agent-001"
        served.append(Shown())
        return served[-1]

    monkeypatch.setattr(local, "TrainingProcess", InProcess)
    monkeypatch.setattr(local.LocalBackend.__init__, "__kwdefaults__", {**local.LocalBackend.__init__.__kwdefaults__, "start": start})  # fmt: skip
    monkeypatch.setenv("TEACHER_API_KEY", "teachers-key")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr()
    assert "SFT TRAINING COMPLETE" in said.out
    assert f"agent-001@{step}" in said.out
    assert "curl http://127.0.0.1:9/v1/chat/completions" in said.out
    assert "sft train" in said.err
    (server,) = served
    assert server.is_closed
    root = tmp_path / (".art" if face == "hone.art" else ".hone")
    checkpoints = root / "sft-project/models/agent-001/checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        f"{i:04d}" for i in range(step + 1)
    ]
    compile(
        said.out.partition("(openai SDK) ---\n\n")[2].partition("--- curl")[0], "printed", "exec"
    )


@pytest.mark.parametrize(
    ("which", "face", "step"),
    [("skill-jsonl", "hone", 1), ("skill-distillation", "hone.art", 2)],
)
def test_a_serverless_script_runs(
    shared: Path,
    tmp_path: Path,
    teacher: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    which: str,
    face: str,
    step: int,
) -> None:
    pytest.importorskip("openai")
    told = names(Path("x"), tmp_path, teacher) | {"BASE_MODEL": BASE}
    code = written(shared, which, serverless=True)
    assert "ServerlessBackend()" in code
    script = tmp_path / "sft_train.py"
    script.write_text(scripts.ported(scripts.filled(code, told), face))
    monkeypatch.setenv("TEACHER_API_KEY", "teachers-key")
    monkeypatch.setenv("HONE_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    with fake_service() as service:
        monkeypatch.setenv("HONE_BASE_URL", service.url)
        runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr()
    assert "SFT TRAINING COMPLETE" in said.out
    assert f"sft-project/agent-001@{step}" in said.out
    assert f"curl {service.url}/chat/completions" in said.out
    assert "sft train" in said.err
    assert len(service.state.jobs) == step
    assert KEY not in said.out


def test_the_documents_own_check_takes_what_training_takes(shared: Path, tmp_path: Path) -> None:
    wizard = scripts.fenced(scripts.document(shared, WIZARD))[0]
    text = scripts.document(shared, SKILL)
    block = scripts.between(text, "import json, sys", "The JSONL format")
    skill = scripts.levelled(block, "00001222233232231200")
    good = chat_rows(tmp_path / "good.jsonl", 5)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    from hone.errors import DataError
    from hone.trainable.file import get_file_row_count, iterate_file

    for checker in (wizard, skill):
        for path, code in ((good, 0), (bad, 1)):
            done = subprocess.run(
                [sys.executable, "-c", checker, str(path)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == code, done.stderr
            assert ("Valid! 5 rows" in done.stdout) == (code == 0)
    assert get_file_row_count(good) == len(list(iterate_file(good))) == 5
    with pytest.raises(DataError):
        list(iterate_file(bad))


@pytest.mark.parametrize("name", [WIZARD, SKILL])
def test_the_documents_own_defaults_are_ours(shared: Path, name: str) -> None:
    from hone.trainable.defaults import default_hyperparameters

    text = scripts.document(shared, name)
    code = (
        scripts.fenced(text)[1]
        if name == WIZARD
        else scripts.between(text, "import math, sys", "Present")
    )
    for rows in (1, 3, 50, 1500, 4000, 50000):
        done = subprocess.run(
            [sys.executable, "-c", code, str(rows)], capture_output=True, text=True, check=True
        )
        ours = default_hyperparameters(rows)
        assert done.stdout.strip() == (
            f"epochs={ours.epochs} batch_size={ours.batch_size} lr=2e-4 schedule={ours.schedule_type} "
            f"warmup_ratio={ours.warmup_ratio}"
        )
