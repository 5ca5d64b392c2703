"""`hone wizard` as a user meets it: on a real terminal, with nobody to ask, and called by a program."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

import hone
from hone.cli.main import run
from tests.wizard.complete import EXAMPLE
from tests.wizard.test_dataset import rows

SOURCES = str(Path(hone.__file__).parents[1])  # a relative PYTHONPATH would point elsewhere here
CODE = "import sys\nfrom hone.cli.main import main\nsys.exit(main())"
ENTER = ""
SECONDS = 60

# What is typed at each question, and a part of the question that is waited for.
JSONL = [
    ("What do you train from", "1"),
    ("Where does training run", "2"),
    ("Which file of rows", "1"),
    ("Which base model", "3"),
    ("Project", ENTER),
    ("Name of the run", "agent-001"),
    ("Hyperparameters", ENTER),
    ("Where is the script", ENTER),
]
INLINE = [
    ("What do you train from", "inline"),
    ("Where does training run", "serverless"),
    ("system", "be brief"),
    ("user", "hello"),
    ("assistant", 'it\'s "good" {day}'),
    ("user", ENTER),
    ("Another example", ENTER),
    ("Which base model", "4"),
    ("A hub id", "my/own"),
    ("Project", "greetings"),
    ("Name of the run", "greeter-001"),
    ("Hyperparameters", "2"),
    ("Batch size", "2"),
    ("Learning rate", "3e-5"),
    ("Where is the script", "inline.py"),
]
DISTILLATION = [
    ("What do you train from", "3"),
    ("Where does training run", "local"),
    ("Which base model", "some/model"),
    ("Project", ENTER),
    ("Name of the run", "math-tutor-001"),
    ("Which model is the teacher", "big/teacher"),
    ("Base address", "https://openrouter.ai/api/v1"),
    ("Which environment variable", ENTER),
    ("What is the teacher asked", "what is 2+2?"),
    (">", "why?"),
    (">", ENTER),
    ("Hyperparameters", "customize"),
    ("Epochs", "3"),
    ("Batch size", ENTER),
    ("Learning rate", ENTER),
    ("Schedule", "2"),
    ("Warmup", "0.1"),
    ("Where is the script", ENTER),
]
PATHS = {"jsonl": JSONL, "inline": INLINE, "distillation": DISTILLATION}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    for name in ("WANDB_API_KEY", "OPENROUTER_API_KEY", "CI", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    rows(folder / "rows.jsonl")
    return folder


class Terminal:
    """A wizard on a pseudo-terminal."""

    def __init__(self, *words: str, columns: int = 80, **environment: str) -> None:
        settings = {"TERM": "xterm", "NO_COLOR": "1", "PYTHONPATH": SOURCES, **environment}
        self.child = pexpect.spawn(
            sys.executable, ["-c", CODE, "wizard", *words], encoding="utf-8", timeout=SECONDS,
            env={**os.environ, **settings}, dimensions=(24, columns),
        )  # fmt: skip
        self.child.delaybeforesend = 0.05  # type: ignore[assignment]
        self.seen = ""

    def wait(self, text: str) -> None:
        self.child.expect_exact(text)
        self.seen += str(self.child.before) + str(self.child.after)

    def prompt(self) -> None:
        """Until it waits for an answer: nothing is typed ahead."""
        self.wait("> ")

    def answer(self, question: str, typed: str) -> None:
        if question != ">":
            self.wait(question)
        self.prompt()
        self.child.sendline(typed)

    def end(self) -> int:
        self.child.expect(pexpect.EOF)
        self.seen += str(self.child.before)
        self.child.close()
        return int(self.child.exitstatus) if self.child.exitstatus is not None else -1


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def constants(path: Path) -> set[object]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("columns", [40, 100])
@pytest.mark.parametrize("scenario", PATHS)
def test_every_path_on_a_terminal(here: Path, scenario: str, columns: int) -> None:
    terminal = Terminal(columns=columns)
    for question, typed in PATHS[scenario]:
        terminal.answer(question, typed)
    terminal.answer("Run it now", "1")
    assert terminal.end() == 0, terminal.seen
    assert "Traceback" not in terminal.seen
    script = here / {"inline": "inline.py"}.get(scenario, "sft_train.py")
    known = constants(script)
    if scenario == "jsonl":
        assert "Valid! 1 rows" in terminal.seen
        assert {
            str(here / "rows.jsonl"),
            "meta-llama/Llama-3.1-8B-Instruct",
            "sft-project",
        } <= known
        assert {"agent-001", 10, 2, 2e-4} <= known
    elif scenario == "inline":
        assert {"be brief", "hello", 'it\'s "good" {day}', "my/own", "greeter-001", 3e-5} <= known
    else:
        assert {"big/teacher", "OPENROUTER_API_KEY", "what is 2+2?", "why?", "cosine", 3} <= known
        assert "OPENROUTER_API_KEY is not set here" in " ".join(terminal.seen.split())
    assert files(here) == {"rows.jsonl", script.name}


@pytest.mark.parametrize("columns", [40])
def test_nothing_is_wider_than_a_small_terminal(here: Path, columns: int) -> None:
    """But for what has no space to break at, and paths."""
    terminal = Terminal(columns=columns)
    for question, typed in JSONL:
        terminal.answer(question, typed)
    terminal.answer("Run it now", "1")
    terminal.end()
    wide = [
        line for line in terminal.seen.split("\r\n")
        if len(line) > columns and str(here)[:columns] not in line and sys.executable[:20] not in line
    ]  # fmt: skip
    assert [line for line in wide if " " in line.strip()[:columns]] == []


def interrupts() -> Iterator[Any]:
    """Each question once."""
    seen: set[str] = set()
    for scenario, path in PATHS.items():
        for place, (question, typed) in enumerate(path):
            if (name := f"{question} {typed if question == '>' else ''}") not in seen:
                seen.add(name)
                yield pytest.param(scenario, place, id=f"{scenario}-{place}")


@pytest.mark.fault(34)
@pytest.mark.parametrize(("scenario", "place"), list(interrupts()))
def test_ctrl_c_at_each_question_leaves_nothing(here: Path, scenario: str, place: int) -> None:
    before = files(here)
    terminal = Terminal()
    for question, typed in PATHS[scenario][:place]:
        terminal.answer(question, typed)
    question = PATHS[scenario][place][0]
    if question != ">":
        terminal.wait(question)
    terminal.prompt()
    terminal.child.sendintr()
    assert terminal.end() == 130, terminal.seen
    assert "nothing was written" in terminal.seen
    assert "Traceback" not in terminal.seen
    assert files(here) == before


@pytest.mark.fault(34)
def test_ctrl_c_at_the_last_question_leaves_a_whole_script(here: Path) -> None:
    terminal = Terminal()
    for question, typed in JSONL:
        terminal.answer(question, typed)
    terminal.wait("Run it now")
    terminal.prompt()
    terminal.child.sendintr()
    assert terminal.end() == 130
    assert "agent-001" in constants(here / "sft_train.py")


@pytest.mark.fault(34)
def test_the_end_of_input_leaves_too(here: Path) -> None:
    terminal = Terminal()
    terminal.wait("What do you train from")
    terminal.prompt()
    terminal.child.sendeof()
    assert terminal.end() == 130
    assert "Traceback" not in terminal.seen


def test_back_by_one_question(here: Path) -> None:
    terminal = Terminal()
    for question, typed in JSONL[:4]:
        terminal.answer(question, typed)
    terminal.answer("Project", "<")
    terminal.answer("Which base model", "<")
    terminal.answer("Which file of rows", "2")
    terminal.answer("Path of a .jsonl file", "rows.jsonl")
    for question, typed in JSONL[3:]:
        terminal.answer(question, typed)
    terminal.answer("Run it now", ENTER)
    assert terminal.end() == 0
    assert str(here / "rows.jsonl") in constants(here / "sft_train.py")


def test_back_at_the_first_question_stays_there() -> None:
    terminal = Terminal()
    terminal.answer("What do you train from", "<")
    terminal.wait("this is the first question")
    terminal.answer("What do you train from", "1")
    terminal.wait("Where does training run")
    terminal.prompt()
    terminal.child.sendintr()
    assert terminal.end() == 130


@pytest.mark.fault(34)
def test_pasted_lines_do_not_answer_the_next_question() -> None:
    terminal = Terminal("--scenario", "jsonl", "--backend", "local", "--data", "rows.jsonl")
    terminal.wait("Which base model")
    terminal.prompt()
    terminal.child.send("some/model\nhis/project\n")
    terminal.wait("several lines")
    terminal.answer(">", "some/model")
    terminal.wait("[sft-project]")
    terminal.prompt()
    terminal.child.sendintr()
    assert terminal.end() == 130


def test_a_bad_answer_is_told_and_asked_again(here: Path) -> None:
    (here / "bad.jsonl").write_text('{"messages": []}\n')
    terminal = Terminal("--scenario", "jsonl", "--backend", "local")
    terminal.answer("Which file of rows", "bad.jsonl")
    terminal.wait("1 error(s):")
    terminal.wait("Line 1")
    terminal.answer("Which file of rows", "9")
    terminal.wait("no such choice")
    terminal.answer(">", "rows.jsonl")
    terminal.wait("Valid! 1 rows")
    terminal.prompt()
    terminal.child.sendintr()
    assert terminal.end() == 130


@pytest.mark.fault(34)
def test_a_script_that_is_there_is_replaced_only_when_asked(here: Path) -> None:
    (here / "sft_train.py").write_text("precious\n")
    words = [
        "--scenario",
        "jsonl",
        "--data",
        "rows.jsonl",
        "--base-model",
        "m",
        "--name",
        "n",
        "--yes",
    ]
    terminal = Terminal(*words)
    terminal.answer("Write over it", "2")
    terminal.answer("Where is the script", "other.py")
    terminal.answer("Run it now", ENTER)
    assert terminal.end() == 0
    assert (here / "sft_train.py").read_text() == "precious\n"
    assert (here / "other.py").exists()
    terminal = Terminal(*words)
    terminal.answer("Write over it", "yes")
    terminal.answer("Run it now", ENTER)
    assert terminal.end() == 0
    assert "precious" not in (here / "sft_train.py").read_text()


def test_colour_only_where_it_is_wanted() -> None:
    for environment, coloured in (
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"NO_COLOR": "", "TERM": "dumb"}, False),
    ):
        terminal = Terminal(**environment)
        terminal.wait("What do you train from")
        assert ("\x1b[1m" in terminal.seen) == coloured
        terminal.prompt()
        terminal.child.sendintr()
        assert terminal.end() == 130


def test_the_script_is_run_and_its_failure_is_told(here: Path) -> None:
    words = ["--scenario", "jsonl", "--backend", "local", "--data", "rows.jsonl", "--yes"]
    terminal = Terminal(*words, "--base-model", str(here / "no model here"), "--name", "n")
    terminal.answer("Run it now", "python")
    code = terminal.end()
    assert code not in (0, 130)
    assert "the script ended with exit code" in terminal.seen


def test_the_last_project_is_remembered() -> None:
    words = [
        "wizard",
        "--yes",
        "--data",
        "rows.jsonl",
        "--base-model",
        "m",
        "--name",
        "n",
        "--force",
    ]
    assert run([*words, "--project", "first"]) == 0
    assert run(words) == 0
    assert "first" in constants(Path("sft_train.py"))
    (Path(os.environ["HONE_CACHE"]) / "wizard.json").write_text('{"project": "../up"}')
    assert run(words) == 0
    assert "sft-project" in constants(Path("sft_train.py"))


@pytest.mark.fault(34)
def test_without_a_terminal_missing_flags_are_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["wizard"]) == 2
    said = capsys.readouterr().err
    assert "nobody can be asked here" in said
    assert "--data, --base-model, --name" in said
    assert (
        run(["wizard", "--no-input", "--data", "rows.jsonl", "--base-model", "m", "--name", "n"])
        == 2
    )
    assert "--scenario was not given\n  remedy: --yes takes" in capsys.readouterr().err
    assert files(here) == {"rows.jsonl"}


@pytest.mark.fault(34)
def test_without_a_terminal_a_script_that_is_there_stays(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sft_train.py").write_text("precious")
    assert run(["wizard", "--yes", "--data", "rows.jsonl", "--base-model", "m", "--name", "n"]) == 2
    assert "--force replaces it, --script FILE.py takes another" in capsys.readouterr().err
    assert Path("sft_train.py").read_text() == "precious"


def test_a_file_of_answers_and_flags_over_it(here: Path) -> None:
    Path("answers.yaml").write_text(
        "scenario: inline\nbase_model: m\nname: 001\nbatch_size: 4\n"
        "examples:\n  - - {role: user, content: a}\n    - {role: assistant, content: b}\n"
    )
    assert run(["wizard", "--yes", "--answers", "answers.yaml", "--name", "002"]) == 0
    assert {"002", 4, 1e-5} <= constants(here / "sft_train.py")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--teacher", "t"], "--teacher would have no effect"),
        (["--run", "cargo"], "no such way"),
        (["--answer", "x"], "belongs to --json"),
        (["--prompt", "a", "--prompts", "b"], "two ways"),
        (["--epochs", "0"], "epochs is a whole number"),
        (["--framework", "trl"], "no such choice"),
        (["--script", "no/where.py"], "no such folder"),
    ],
)
def test_flags_that_cannot_be(
    capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    assert (
        run(["wizard", "--yes", "--data", "rows.jsonl", "--base-model", "m", "--name", "n", *words])
        == 2
    )
    assert why in capsys.readouterr().err
    assert not Path("sft_train.py").exists()


def call(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert run(["wizard", "--json", *words]) == code
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_a_program_is_asked_one_question_a_call(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = call(capsys, "--restart")
    assert [one["value"] for one in told["question"]["options"]] == [
        "jsonl",
        "inline",
        "distillation",
    ]
    told = call(capsys, "--answer", "jsonl")
    assert told["question"]["default"] == "local", "no key is here"
    told = call(capsys, "--answer", "local")
    assert [one["value"] for one in told["question"]["options"]] == [str(here / "rows.jsonl")]
    assert told["question"]["other"] == "Provide my own file path"
    assert call(capsys, "--answer", "nowhere.jsonl", code=3)["what"] == "no such file"
    told = call(capsys, "--answer", str(here / "rows.jsonl"))
    assert told["notes"] == ["Valid! 1 rows"]
    assert told["question"]["key"] == "base_model"
    assert call(capsys, "--back")["question"]["key"] == "data"
    told = call(capsys, "--answer", "rows.jsonl", "--base-model", "m", "--project", "p")
    assert told["question"]["key"] == "name"
    told = call(capsys, "--answer", "agent-001")
    assert (
        told["question"]["options"][0]["note"]
        == "epochs=10 batch_size=2 lr=2e-4 schedule=linear warmup_ratio=2.0"
    )
    assert call(capsys)["question"] == told["question"], "asking again changes nothing"
    call(capsys, "--answer", "defaults")
    told = call(capsys, "--answer", "sft_train.py")
    assert told["event"] == "done"
    assert told["run"][-1].endswith(" sft_train.py")
    assert told["notes"][0] == "1 row, 10 epochs, batches of 2: 5 gradient steps"
    assert "never reaches its peak" in told["notes"][1]
    assert files(here) == {"rows.jsonl", "sft_train.py"}, "the state is gone"


def test_a_program_may_say_it_all_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--scenario",
        "inline",
        "--base-model",
        "m",
        "--name",
        "n",
        "--example",
        json.dumps(EXAMPLE),
    ]
    assert call(capsys, "--yes", *words)["event"] == "done"
    assert "good day" in constants(here / "sft_train.py")


def test_a_key_is_never_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = "sk-or-v1-0123456789abcdef"
    words = [
        "--scenario",
        "distillation",
        "--base-model",
        "m",
        "--name",
        "n",
        "--teacher",
        "t",
        "--yes",
    ]
    assert key not in json.dumps(call(capsys, *words, "--teacher-key-env", key, code=2))
    assert files(here) == {"rows.jsonl"}
    call(capsys, *words)
    told = call(capsys, "--yes", "--answer", '["why?"]')
    assert told["event"] == "done"
    assert key not in (here / "sft_train.py").read_text()
