"""The command as a whole: what it loads, how it fails, what it exits with."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hone.cli import main as command
from hone.cli.main import VERBS, run
from hone.errors import EXIT_CODES

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "pydantic",
    "rich",
    "numpy",
    "ruamel",
    "yaml",
    "matplotlib",
)
HELP_SECONDS = 0.25
PREVIEW_SECONDS = 1.5


def python(code: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=check, timeout=60
    )


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom hone.cli.main import run\n"
        "assert run(['--help']) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = python(code)
    assert done.stderr.strip() == "[]"
    for verb in VERBS:
        assert verb.name in done.stdout


def processor_seconds(*words: str) -> float:
    """What a whole `hone` process costs at its best of five: a busy machine only adds to it."""
    spent: list[float] = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(f"import sys\nfrom hone.cli.main import run\nsys.exit(run({list(words)!r}))")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def test_help_is_fast() -> None:
    assert processor_seconds("--help") < HELP_SECONDS


def test_preview_is_fast(shared: Path) -> None:
    rows, tokenizer = shared / "data" / "gsm8k_train.jsonl", shared / "tokenizers" / "qwen2.5"
    columns = "data.columns={user: question, assistant: answer}"
    words = ["preview", str(rows), "--model", str(tokenizer), "--rows", "10", columns]
    assert processor_seconds(*words) < PREVIEW_SECONDS


def test_no_word_at_all_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hone 0.")


@pytest.mark.parametrize("topic", ["exit-codes", "settings", "environment"])
def test_topics(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", topic]) == 0
    text = capsys.readouterr().out
    if topic == "exit-codes":
        assert [int(line.split()[0]) for line in text.splitlines()] == list(EXIT_CODES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["zzz"], "`hone --help` shows what is allowed"),
        (["--versoin"], "--version"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--learning-rate", "3"], "train.learning_rate=VALUE"),
        (["train", "--zzz"], "`hone train --help` shows what is allowed"),
        (["train", "--pipeline-parallel", "2"], "compute.strategy=fsdp"),
        (["train", "--lr"], "requires an argument"),
        (["runs"], "Missing command"),
        (["runs", "lst"], "Did you mean 'list'?"),
        (["runs", "compare", "a"], "Missing argument"),
        (["config", "shwo"], "Did you mean 'show'?"),
        (["help", "exitcodes"], "did you mean 'exit-codes'?"),
    ],
)
def test_usage_errors_exit_2_and_name_the_nearest(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert said.lower() in shown.err.lower()
    assert "Traceback" not in shown.err


def test_json_errors_are_one_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "rows.jsonl", "--json", "train.batch_size=0"]) == 2
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert (told["event"], told["exit_code"], told["kind"]) == ("error", 2, "ConfigError")
    assert "train.batch_size: 0" in told["what"]
    assert told["where"] == "command line"
    assert shown.err.startswith("error: train.batch_size: 0")


def test_a_fault_of_ours_is_one_line_and_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import sys\nfrom hone.cli import main\n"
        "class Broken(main.Verb):\n    def load(self): raise ZeroDivisionError('secret sauce')\n"
        "main.VERBS = (Broken('broken', 'a:b', 'c'),)\n"
        "sys.exit(main.run(['broken']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "unexpected ZeroDivisionError: secret sauce" in done.stderr
    (trace,) = tmp_path.glob("hone-trace-*.txt")
    assert str(trace) in done.stderr
    assert "Traceback" in trace.read_text()
    assert "hone 0." in trace.read_text()


def test_a_full_disk_is_an_environment_fault() -> None:
    fault = command._known_fault(OSError(28, "No space left on device", "out/model"))  # pyright: ignore[reportPrivateUsage]
    assert fault.exit_code == 4
    assert fault.where == "out/model"
    assert command._known_fault(MemoryError()).exit_code == 5  # pyright: ignore[reportPrivateUsage]


def test_a_closed_pipe_is_quiet() -> None:
    code = "import sys\nfrom hone.cli.main import main\nsys.argv = ['hone', 'schema']\nsys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_the_token_of_the_hub_is_never_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_do_not_show")
    for words in (["config", "show"], ["config", "show", "--json"], ["schema"]):
        assert run(words) == 0
    assert "hf_do_not_show" not in "".join(capsys.readouterr())


def test_config_show_as_json_and_as_yaml_that_reads_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["rows.jsonl", "train.learning_rate=1e-4"]
    assert run(["config", "show", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["config"]["train"]["learning_rate"] == 1e-4
    assert told["origins"]["train.learning_rate"] == told["origins"]["data.path"] == "command line"
    assert run(["config", "show", *words]) == 0
    file = tmp_path / "shown.yaml"
    file.write_text(capsys.readouterr().out)
    assert run(["config", "show", str(file), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["config"] == told["config"]
    assert again["origins"]["train.learning_rate"].startswith(f"{file}:")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "tr_TR.UTF-8"},
        {"TZ": "Asia/Kathmandu"},
        {"LC_NUMERIC": "de_DE.UTF-8"},
        {"PYTHONIOENCODING": "ascii"},
    ],
)
def test_locale_and_time_zone_change_nothing(environment: dict[str, str]) -> None:
    code = "import sys\nfrom hone.cli.main import main\nsys.exit(main())"
    words = ["config", "show", "data.path=é.jsonl", "train.learning_rate=1e-4"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, check=False, timeout=60,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode().replace("\\xe9", "é")
    assert 'path: "é.jsonl"' in shown
    assert "learning_rate: 0.0001" in shown
