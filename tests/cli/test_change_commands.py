"""The commands that change rows: what they print, what they write, and what they exit with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hone.cli.main import run
from tests.data.mixed_rows import line, write

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "agent"
ROWS = [line({"user": f"q{n}", "assistant": "a"}) for n in range(30)]
BAD = [b"{", line({"user": 1, "assistant": "b"})]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", ROWS)
    write(tmp_path / "mixed.jsonl", [*ROWS[:1], *BAD * 3, *ROWS[1:]])
    write(tmp_path / "bad.jsonl", BAD)
    write(tmp_path / "data" / "raw" / "raw.jsonl", ROWS)
    for name in ("rows.jsonl", "tools.json", "prompts.json"):
        (tmp_path / f"agent_{name}").write_bytes((EXAMPLES / name).read_bytes())
    return tmp_path


AGENT = ["process", "--recipe", "tau2", "agent_rows.jsonl", "out.jsonl"]
FILES = ["--tools", "agent_tools.json", "--prompts", "agent_prompts.json"]


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["convert", "mixed.jsonl", "out.json", "--to", "messages"], ["out.json"]),
        (["split", "mixed.jsonl", "--out", "parts"], ["parts/train.jsonl", "parts/val.jsonl", "parts/test.jsonl"]),
        (["split", "rows.jsonl", "--out", "parts", "--train", "0.5", "--val", "0.5"], ["parts/train.jsonl", "parts/val.jsonl"]),
        (["style", "mixed.jsonl", "--style", "Be brief.", "--out", "out.jsonl"], ["out.jsonl", "out.jsonl.style.json"]),
        (["process"], ["data/processed/train.jsonl", "data/processed/val.jsonl", "data/processed/test.jsonl"]),
        (["process", "mixed.jsonl", "--out", "o", "--ratio", "0.5/0.5", "--system", "", "--max-characters", "9"], ["o/train.jsonl", "o/val.jsonl"]),
        ([*AGENT, *FILES], ["out.jsonl"]),
        ([*AGENT, "--steps", "merge-turns,hermes"], ["out.jsonl"]),
    ],
)  # fmt: skip
def test_done(here: Path, capsys, words, written) -> None:
    before = {one: one.read_bytes() for one in here.rglob("*") if one.is_file()}
    assert run(words) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    ledgers = list(here.rglob("*.ledger.json"))
    assert len(ledgers) == 1
    told = json.loads(ledgers[0].read_text())
    assert told["read"] == told["kept"] + told["dropped"]
    assert f"read {told['read']} = kept {told['kept']} + dropped {told['dropped']}" in shown.out
    for name in written:
        assert (here / name).stat().st_size
        assert name in shown.out or name.endswith("style.json")
    new = {one for one in here.rglob("*") if one.is_file()} - set(before)
    assert new == {here / name for name in written} | {ledgers[0]}
    assert {one: one.read_bytes() for one in before} == before
    assert run(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert run([*words, "--force", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == json.loads(ledgers[0].read_text())
    assert again["files"] == told["files"]


def test_first_lines_on_the_screen_and_all_in_the_file(here: Path, capsys) -> None:
    assert run(["convert", "mixed.jsonl", "o.jsonl", "--to", "alpaca", "--ledger", "l.json"]) == 0
    shown = capsys.readouterr().out
    assert "dropped 3: not a row of JSON (lines 2, 4, 6)" in shown
    assert "the JSON ends too early" in shown
    write(here / "many.jsonl", [*BAD[:1] * 8, *ROWS])
    assert run(["split", "many.jsonl", "--out", "p", "--json"]) == 0
    reasons = json.loads(capsys.readouterr().out)["files"][0]["dropped"]
    assert reasons["not a row of JSON"]["lines"] == list(range(1, 9))
    assert run(["split", "many.jsonl", "--out", "p", "--force"]) == 0
    assert "(lines 1, 2, 3, 4, 5, ...)" in capsys.readouterr().out
    assert json.loads((here / "l.json").read_text())["command"] == "convert"


def test_style_of_what_was_processed(here: Path, capsys) -> None:
    assert run(["process"]) == 0
    assert run(["style", "--style", "Answer in a friendly tone."]) == 0
    styled = here / "data" / "processed_with_style"
    assert sorted(one.name for one in styled.iterdir()) == [
        "style.json", "test.jsonl", "train.jsonl", "val.jsonl",
    ]  # fmt: skip
    first = json.loads((styled / "train.jsonl").read_text().split("\n")[0])["messages"][0]
    assert first["content"] == "Answer in a friendly tone.\n\nYou are a helpful domain assistant."


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["convert", "rows.jsonl", "--to", "messages"], 2, "two files are wanted"),
        (["convert", "rows.jsonl", "o.jsonl"], 2, "--to"),
        (["convert", "rows.jsonl", "o.jsonl", "--to", "mesages"], 2, "did you mean 'messages'"),
        (["convert", "rows.jsonl", "o.jsonl", "--to", "turns", "--format", "turn"], 2, "data.format"),
        (["convert", "rows.jsonl", "o.jsonl", "--to", "turns", "train.epochs=2"], 2, "no effect here"),
        (["convert", "rows.jsonl", "o.jsonl", "--to", "turns", "data.colums={}"], 2, "data.columns"),
        (["convert", "rows.jsonl", "rows.jsonl", "--to", "turns", "--force"], 2, "in place"),
        (["convert", "rows.jsonl", "o.csv", "--to", "turns"], 2, "o.jsonl"),
        (["convert", "absent.jsonl", "o.jsonl", "--to", "turns"], 3, "no such file"),
        (["convert", "bad.jsonl", "o.jsonl", "--to", "turns"], 3, "no row is left"),
        (["convert", "rows.jsonl", "rows.jsonl/o.jsonl", "--to", "turns"], 4, "cannot write"),
        (["split", "rows.jsonl", "--out", "p", "--ratio", "0.5/0.2"], 2, "sum to 1"),
        (["split", "rows.jsonl", "--out", "p", "--ratio", "1", "--train", "1"], 2, "exclude"),
        (["split", "rows.jsonl", "--out", "p", "--group-by", "who"], 2, "no row has a column 'who'"),
        (["split", "rows.jsonl"], 2, "--out"),
        (["split", "bad.jsonl", "--out", "p"], 3, "cannot fill"),
        (["split", "data", "--out", "p"], 3, "directory"),
        (["style", "rows.jsonl", "--style", ""], 2, "empty"),
        (["style", "--style", "x"], 3, "no such file"),
        (["style", "bad.jsonl", "--style", "x", "--out", "bad.jsonl/o.jsonl"], 4, "cannot write"),
        (["process", "--recipe", "tau3"], 2, "did you mean 'tau2'"),
        (["process", "a", "b"], 2, "--out"),
        (["process", "--tools", "x"], 2, "--tools has no effect"),
        (["process", "--max-characters", "0"], 2, "--max-characters"),
        (["process", "--out", "data/raw", "--force"], 2, "in place"),
        (["process", "absent"], 3, "no such folder"),
        (["process", "--out", "rows.jsonl/o"], 4, "cannot write"),
        (AGENT, 2, "--tools SPEC.json"),
        ([*AGENT, "--seed", "3"], 2, "--seed has no effect"),
        ([*AGENT, "--steps", "hermies"], 2, "did you mean 'hermes'"),
        ([*AGENT, "--tools", "absent.json", *FILES[2:]], 2, "cannot read"),
        ([*AGENT[:3], "bad.jsonl", "o.jsonl", "--steps", "hermes"], 3, "no row is left"),
        ([*AGENT[:3], "out.jsonl"], 2, "two files are wanted"),
    ],
)  # fmt: skip
def test_refused(here: Path, capsys, words, code, said) -> None:
    before = sorted(here.rglob("*"))
    assert run(words) == code
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert said in shown.err
    assert "unexpected" not in shown.err
    assert sorted(here.rglob("*")) == before


def test_text_of_strangers_cannot_steer_the_terminal(here: Path, capsys) -> None:
    write(here / "odd.jsonl", [*ROWS, line({"user": "a", "\x1b[2J": 1}), line({"\x1b]0;x": 1})])
    assert run(["convert", "odd.jsonl", "o.jsonl", "--to", "messages"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_it_writes(here: Path, kind: signal.Signals) -> None:
    long = [line({"user": "q" * 500, "assistant": f"{n}"}) for n in range(120_000)]
    write(here / "long.jsonl", long)
    before = {one for one in here.rglob("*") if one.is_file()}
    words = [sys.executable, "-m", "hone", "convert", "long.jsonl", "deep/o.jsonl"]
    with subprocess.Popen(
        [*words, "--to", "messages"],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    ) as process:
        deadline = time.monotonic() + 60
        while not list(here.glob("deep/.*.part")) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(kind)
        code = process.wait(60)
    new = {one for one in here.rglob("*") if one.is_file()} - before
    if (
        kind is signal.SIGKILL
    ):  # nobody can tidy up then, but no half file has the name of a whole one
        assert [one.suffix for one in new] == [".part"]
    else:
        assert code == {signal.SIGINT: 130, signal.SIGTERM: 143}[kind]
        assert not new
        assert not (here / "deep").exists()
    assert run(["convert", "rows.jsonl", "deep/o.jsonl", "--to", "messages"]) == 0
    assert sorted(one.name for one in (here / "deep").iterdir()) == [
        "o.jsonl", "o.jsonl.ledger.json",
    ]  # fmt: skip
