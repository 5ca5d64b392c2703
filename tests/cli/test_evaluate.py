"""`hone evaluate` and `hone infer` as a user types them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from hone.cli.main import run
from tests.folders import chat_rows, model_folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("a home")
    model_folder(home / "my model")
    chat_rows(home / "held out.jsonl", rows=5)
    return home


@pytest.fixture(autouse=True)
def _place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(home / "cache"))
    monkeypatch.chdir(tmp_path)


def words(home: Path, *more: str) -> list[str]:
    named = [str(home / "my model"), str(home / "held out.jsonl")]
    return ["evaluate", *named, "--max-tokens", "6", *more]


def test_a_table_and_three_files(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words(home)) == 0
    told = capsys.readouterr()
    assert "exact_match" in told.out
    assert "worst answers:" in told.out
    assert "left out:" in told.out
    assert "answers of tuned" in told.err
    found = sorted(path.name for path in Path("evaluations/my model-held out").iterdir())
    assert found == ["report.html", "result.json", "samples.jsonl"]


def test_json_says_every_event_and_the_result_last(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words(home, "--metric", "loss", "--json", "--out", "o")) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["event"] == "result"
    assert set(lines[-1]["measures"]) == {"loss"}
    assert lines[-1]["report"] == "o/report.html"


def test_a_gate_s_code(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words(home, "--metric", "loss", "--fail-under", "loss=0.1")) == 9
    told = capsys.readouterr()
    assert "a gate is missed: loss is" in told.err
    assert "wrote evaluations" in told.out


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--fail-under", "los=1"], 2, "did you mean 'loss'?"),
        (["--metric", "blue"], 2, "did you mean 'bleu'?"),
        (["--judge-url", "http://x"], 2, "no effect without --judge"),
        (["--judge", "m"], 2, "--judge needs --judge-url"),
        (["--regex", "("], 2, "no regular expression"),
        (["--schema", "none.json"], 2, "cannot be read"),
        (["train.epochs=2"], 2, "no effect on an evaluation"),
        (["data.too_lang=drop"], 2, "data.too_long"),
        (["--task-folder", "."], 2, "no effect without --task"),
        (["nowhere.jsonl"], 3, "nowhere.jsonl"),
    ],
)
def test_refusals(
    home: Path, more: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words(home, *more)) == code
    assert said in capsys.readouterr().err
    assert not Path("evaluations").exists()


def test_infer_answers_a_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("test_inputs.txt").write_text("the cat\nthe dog\n")
    assert run(["infer", str(home / "my model"), "--batch-file", "--max-tokens", "5"]) == 0
    assert "2 answers" in capsys.readouterr().out
    assert len(Path("preds.txt").read_text().splitlines()) == 2
    assert run(["infer", str(home / "my model"), "--output", "preds"]) == 2
    assert "--force" in capsys.readouterr().err
    again = ["infer", str(home / "my model"), "--output", "preds", "--force", "--json"]
    assert run([*again, "--max-tokens", "5"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["answers"] == 2


def test_infer_talks_without_a_file(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say() -> None:
        text = io.TextIOWrapper(io.BytesIO(b"the red cat\n"), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", text)

    flags = [str(home / "my model"), "--json", "--max-tokens", "5"]
    say()
    assert run(["infer", *flags]) == 0
    reply = json.loads(capsys.readouterr().out)["reply"]
    say()
    assert run(["chat", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["reply"] == reply
    assert run(["infer", *flags, "--batch", "3"]) == 2
    assert "no effect on a conversation" in capsys.readouterr().err
