"""Bad input on the command line: for each kind a clear message, its exit code, and nothing written."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hone.cli.main import run
from hone.runs.folder import RunFolder
from tests.folders import chat_rows, model_folder, tokenizer_folder

GOOD_ROW = (
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
)
LONG_LINE_BYTES = 100_000_000


def message_row(*messages: dict[str, object]) -> str:
    return json.dumps({"messages": messages}) + "\n"


USER = {"role": "user", "content": "a"}


@dataclass(frozen=True)
class Case:
    """What stands in the folder and what is typed; then what must come of it."""

    name: str
    code: int
    said: tuple[str, ...]
    rows: str | bytes | Callable[[Path], None] | None = GOOD_ROW
    words: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    model: Callable[[Path], object] | None = None


def a_folder(path: Path) -> None:
    path.mkdir()


def a_long_line(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b'{"prompt": "')
        file.write(b"a" * LONG_LINE_BYTES)
        file.write(b'", "completion": "b"}\n')


def with_pickle(folder: Path) -> None:
    tokenizer_folder(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def without_weights(folder: Path) -> None:
    tokenizer_folder(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')


CASES = [
    Case("no such file", 3, ("no such file", "rows.jsonl"), rows=None),
    Case("a directory", 3, ("rows.jsonl", "directory"), rows=a_folder),
    Case("an empty file", 3, ("rows.jsonl",), rows=""),
    Case("only blank lines", 3, ("rows.jsonl",), rows="\n \n\n"),
    Case("half a line", 3, ("rows.jsonl", "2"), rows=GOOD_ROW + '{"messages": [{"role": "us'),
    Case("not UTF-8", 3, ("rows.jsonl", "UTF-8"), rows=GOOD_ROW.encode().replace(b'"a"', b'"\xff"')),
    Case("NaN", 3, ("rows.jsonl", "NaN"), rows=GOOD_ROW.replace('"a"', "NaN")),
    Case("a line of 100 MB", 3, ("rows.jsonl", "1"), rows=a_long_line),
    Case("an unknown role", 3, ("bot", "rows.jsonl"), rows=message_row(USER, {"role": "bot", "content": "b"})),
    Case("no assistant turn", 3, ("rows.jsonl",), rows=message_row(USER)),
    Case("null content without tool calls", 3, ("content", "rows.jsonl"), rows=message_row(USER, {"role": "assistant", "content": None})),
    Case("a row longer than the limit", 3, ("rows.jsonl", "8"), words=("data.max_length=8",), rows=message_row({"role": "user", "content": "word " * 50}, {"role": "assistant", "content": "b"})),
    Case("an unknown key in a file", 2, ("'train.epoch'", "config.yaml:2", "train.epochs"), files={"config.yaml": "train:\n  epoch: 3\n"}, words=("config.yaml",)),
    Case("an unknown key typed", 2, ("'train.bach_size'", "train.batch_size"), words=("train.bach_size=3",)),
    Case("an unknown key in the environment", 2, ("HONE_TRAIN_EPOCH", "HONE_TRAIN_EPOCHS"), environment={"HONE_TRAIN_EPOCH": "3"}),
    Case("batch_size 0", 2, ("train.batch_size", "at least 1"), words=("--batch-size", "0")),
    Case("no such configuration", 2, ("absent.yaml",), words=("absent.yaml",)),
    Case("a broken configuration", 2, ("not YAML", "begun in line 2"), files={"config.yaml": "train:\n epochs: [1\n"}, words=("config.yaml",)),
    Case("two files of rows", 2, ("two files of rows",), words=("more.jsonl",)),
    Case("held-out settings without held-out rows", 2, ("validation_split",), words=("train.eval_steps=3",)),
    Case("longer rows than the model takes", 2, ("256",), words=("data.max_length=100000",)),
    Case("no such model folder", 4, ("model",), model=lambda folder: None),
    Case("a model folder without weights", 4, ("weights",), model=without_weights),
    Case("a model folder with a pickle", 4, ("safetensors",), model=with_pickle),
]  # fmt: skip


@pytest.fixture(scope="module")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("models") / "tiny")


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused_clearly_with_its_code_and_nothing_written(
    case: Case,
    good_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    for name, text in case.files.items():
        (tmp_path / name).write_text(text)
    rows = tmp_path / "rows.jsonl"
    if isinstance(case.rows, str | bytes):
        rows.write_bytes(case.rows.encode() if isinstance(case.rows, str) else case.rows)
    elif case.rows is not None:
        case.rows(rows)
    model = good_model
    if case.model is not None:
        model = tmp_path / "model"
        case.model(model)
    before = tree(tmp_path)
    code = run(["train", "rows.jsonl", "--model", str(model), "--output", "out", *case.words])
    shown = capsys.readouterr()
    assert code == case.code, shown.err
    assert shown.err.startswith("error: ")
    assert "Traceback" not in shown.err
    assert "unexpected" not in shown.err
    for part in case.said:
        assert part in shown.err
    assert tree(tmp_path) == before, "something was written"
    assert not (tmp_path / "out").exists()


def test_an_output_folder_of_a_live_run(
    good_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    rows = chat_rows(tmp_path / "rows.jsonl")
    live = RunFolder.create(tmp_path / "out")
    live.write_config("train: {}\n")
    with live.lock():
        before = tree(tmp_path)
        words = ["train", str(rows), "--model", str(good_model), "--output", str(live.path)]
        assert run(words) == 4
        assert f"process {os.getpid()}" in capsys.readouterr().err
        assert run([*words, "--fresh"]) == 4
        assert tree(tmp_path) == before


@pytest.mark.parametrize("limit_bytes", [2_000, 20_000])
def test_a_disk_that_takes_no_more(good_model: Path, tmp_path: Path, limit_bytes: int) -> None:
    """The system refuses to let a file grow; on a full disk it is another number for the same failure."""
    rows = chat_rows(tmp_path / "rows.jsonl")
    code = "import sys\nfrom hone.cli.main import main\nsys.exit(main())"
    words = ["train", str(rows), "--model", str(good_model), "--output", str(tmp_path / "out")]
    words += ["train.max_steps=2", "train.precision=fp32", "compute.micro_batch_tokens=512"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False,
        timeout=120, env={**os.environ, "HONE_CACHE": str(tmp_path / "cache")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert "where: " in done.stderr
