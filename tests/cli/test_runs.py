"""`hone runs list, show, compare` on folders as runs leave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.cli.main import run
from tests.runs.test_summary import make_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_run(tmp_path / "first", learning_rate=0.1)
    make_run(tmp_path / "second", steps=2, end="failed", learning_rate=0.2)
    (tmp_path / "not-a-run").mkdir()
    return tmp_path


def plain(text: str) -> list[str]:
    """Lines with one space between their words."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_list(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "list", "--root", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "RUN",
        "STATE",
        "STEP",
        "LOSS",
        "HELD-OUT",
        "TOKENS",
        "TIME",
        "BEGAN",
    ]
    assert lines[1].split()[:7] == ["first", "finished", "3/10", "0.3333", "0.2500", "300", "2s"]
    assert lines[2].split()[:7] == ["second", "failed", "2/10", "0.5000", "0.2500", "200", "1s"]
    assert len(lines) == 3


def test_list_as_json_names_the_damaged(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "second" / "run.json").write_text("{half")
    assert run(["runs", "list", "--root", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in told["runs"]] == ["first"]
    assert told["runs"][0]["held_out_loss"] == 0.25
    assert [each["name"] for each in told["damaged"]] == ["second"]


def test_nothing_to_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "list", "--root", str(tmp_path / "absent")]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_show(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "first", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    rows = plain(text)
    for row in ("state finished", "tokens 300", "saved by sharing 40%", "computed tokens/s 120"):
        assert row in rows
    assert "note: something to know" in text
    assert "o held-out rows   * best: 0.25 at step 2" in text, "the curve"
    assert run(["runs", "show", str(root / "second"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "failed"
    assert told["config"]["train"] == {"learning_rate": 0.2}


def test_compare(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "compare", "first", "second", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    assert "loss 0.3333 0.5000" in plain(text)
    assert "train.learning_rate  0.1    0.2" in text
    assert run(["runs", "compare", "first", "first", "--root", str(root)]) == 0
    assert "no setting differs" in capsys.readouterr().out
    assert run(["runs", "compare", "first", "second", "--root", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["differences"] == [{"name": "train.learning_rate", "first": 0.1, "second": 0.2}]
    assert [each["state"] for each in told["runs"]] == ["finished", "failed"]


def test_an_unknown_run_is_named_with_the_nearest(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["runs", "show", "frist", "--root", str(root)]) == 4
    said = capsys.readouterr().err
    assert "no run 'frist'" in said
    assert "did you mean 'first'?" in said


def test_show_and_compare_tell_sources_and_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        folder = make_run(tmp_path / name, end=None)
        if name == "first":
            with folder.events() as log:
                part = {"code": {"loss": 1.25, "weight": 1.0}}
                log.say("evaluated", step=3, loss=0.1, rows=1, sources=part)
                sample = {"name": "r:1", "prompt": "a", "reply": "b", "wanted": "c"}
                log.say("sample", step=3, samples=[sample])
    assert run(["runs", "show", "first", "--root", str(tmp_path)]) == 0
    rows = plain(capsys.readouterr().out)
    at = rows.index("samples after step 3:")
    assert rows[at + 1 : at + 5] == ["r:1", "asked a", "reply b", "wanted c"]
    assert "held-out loss of code 1.2500" in rows
    assert run(["runs", "compare", "second", "first", "--root", str(tmp_path)]) == 0
    assert "held-out loss of code - 1.2500" in plain(capsys.readouterr().out)
