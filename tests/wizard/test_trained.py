"""Scripts that are really run, on tiny models, as a user would run them: trained, told, closed."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hone
from hone.wizard.script import script
from tests.folders import chat_rows, model_folder
from tests.wizard.complete import complete

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hone.trainable") is None, reason="no trainable models in this version"
)

SOURCES = str(Path(hone.__file__).parents[1])
# Serving has tests of its own; here an address is enough for the closing block.
RUN = """
import runpy, sys
from hone.backends.local import LocalBackend
class Server:
    base_url, pids = "http://127.0.0.1:9/v1/", []
    def close(self): print("closed")
LocalBackend.__init__.__kwdefaults__["start"] = lambda folder, **_: Server()
runpy.run_path(sys.argv[1], run_name="__main__")
"""


class Teacher(http.server.BaseHTTPRequestHandler):
    """Answers each question; one of them it refuses."""

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = told["messages"][-1]["content"]
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "content_filter" if "refuse" in said else "stop",
            "message": {"role": "assistant", "content": f"red {said}"},
        }
        body = {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "t",
            "choices": [choice],
        }
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def teacher() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Teacher) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base 'model' {x}")
    model_folder(folder)
    return folder


def trained(folder: Path, text: str) -> tuple[str, list[dict[str, Any]]]:
    """What a script prints, and the gradient steps in its history."""
    (folder / "sft_train.py").write_text(text, encoding="utf-8")
    extra = {
        "PYTHONPATH": SOURCES,
        "HONE_CACHE": str(folder / "cache"),
        "EXAMPLE_KEY": "k",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, "sft_train.py"], cwd=folder, env={**os.environ, **extra},
        capture_output=True, text=True, check=False, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "SFT TRAINING COMPLETE" in done.stdout
    assert done.stdout.endswith("closed\n")
    history = next(folder.glob(".*/*/models/*/history.jsonl")).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in history.splitlines()]
    return done.stdout, [line for line in lines if "sft/gradient_step" in line]


def test_a_file_of_rows(tmp_path: Path, base: Path) -> None:
    data = chat_rows(tmp_path / "what's {this}.jsonl", 6)
    answers = complete(
        tmp_path, "jsonl", rows=6, data=str(data), backend="local", base_model=str(base), epochs="1",
        name="it's {x}", warmup_ratio="0.5",
    )  # fmt: skip
    printed, steps = trained(tmp_path, script(answers))
    assert [step["sft/loss/learning_rate"] for step in steps] == [2e-4, 2e-4, 0.0]
    assert "Model:          it's {x}@1\n" in printed
    assert '"it\'"\'"\'s {x}@1"' in printed, "the printed command is a command"


def block(printed: str, title: str) -> str:
    """What stands under a heading of the closing block."""
    return printed.partition(f"--- {title} ---\n")[2].partition("\n---")[0].strip()


@pytest.mark.slow
def test_what_the_closing_block_prints_works_as_printed(tmp_path: Path, base: Path) -> None:
    """Trained and served for real; then `hone serve` is typed, and the same answer comes by openai and by curl."""
    data = chat_rows(tmp_path / "rows.jsonl", 4)
    answers = complete(
        tmp_path, "jsonl", rows=4, data=str(data), backend="local", base_model=str(base), epochs="1",
        name="it's {x}", project="my project",
    )  # fmt: skip
    (tmp_path / "sft_train.py").write_text(script(answers), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": SOURCES, "HONE_CACHE": str(tmp_path / "cache")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    printed = subprocess.run(
        [sys.executable, "sft_train.py"], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=True, timeout=250,
    ).stdout  # fmt: skip
    again = block(printed, "Serve it again, any time")
    assert again.startswith("hone serve 'my project/it'\"'\"'s {x}' --port ")
    server = subprocess.Popen(
        shlex.split(again), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert "serving at" in server.stdout.readline()
        asked = block(printed, "Python usage (openai SDK)")
        python = asked.replace("    ],\n)", "    ],\n    max_tokens=9, temperature=0,\n)")
        said = subprocess.run(
            [sys.executable, "-c", python], capture_output=True, text=True, check=True, timeout=120
        )
        words = block(printed, "curl usage").replace(
            '"messages"', '"max_tokens": 9, "temperature": 0, "messages"'
        )
        answer = subprocess.run(
            ["bash", "-c", words], capture_output=True, text=True, check=True, timeout=120
        )
        content = json.loads(answer.stdout)["choices"][0]["message"]["content"]
        assert content
        assert said.stdout.rstrip("\n") == content.rstrip("\n")
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


@pytest.mark.slow
def test_examples(tmp_path: Path, base: Path) -> None:
    answers = complete(tmp_path, "inline", backend="local", base_model=str(base))
    _, steps = trained(tmp_path, script(answers))
    assert [step["sft/loss/learning_rate"] for step in steps] == [1e-5]


@pytest.mark.slow
def test_a_teacher(tmp_path: Path, base: Path, teacher: str) -> None:
    answers = complete(
        tmp_path, "distillation", backend="local", base_model=str(base), epochs="2", teacher_url=teacher,
        prompts=["the cat", "refuse this", "the dog", "the bird"],
    )  # fmt: skip
    printed, steps = trained(tmp_path, script(answers))
    assert "left out (content_filter): refuse this" in printed
    assert len(steps) == 4, "two batches of the three that are left, twice"


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["jsonl", "inline"])
def test_a_script_for_art_under_its_own_face(tmp_path: Path, base: Path, scenario: str) -> None:
    data = chat_rows(tmp_path / "rows.jsonl", 4)
    more = {"epochs": "1"} if scenario == "jsonl" else {}
    answers = complete(
        tmp_path, scenario, rows=4, data=str(data), backend="local", base_model=str(base), framework="art", **more,
    )  # fmt: skip
    text = (
        script(answers)
        .replace("import art\n", "from hone import art\n")
        .replace("from art.", "from hone.art.")
    )
    trained(tmp_path, text)
