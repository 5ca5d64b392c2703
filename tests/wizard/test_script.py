"""The script: over all options, with answers full of quotes and braces, it compiles, keeps every value and is tidy."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hone.wizard.script import script
from tests.wizard.complete import BACKENDS, EXAMPLE, FRAMEWORKS, KEY, SCENARIOS, complete

MATRIX = list(itertools.product(SCENARIOS, BACKENDS, FRAMEWORKS))
RUFF = "A,ARG,ASYNC,B,C4,E4,E7,E9,F,I,N,PIE,RET,RUF,SIM,UP,W"
# What would hurt a script that is put together from text: quotes, braces, escapes, ends of lines, and wide letters.
awkward = st.text(
    alphabet=st.sampled_from(list("aZ 0'\"\\{}[]()#%$;:,=\t\n\r\0é漢👩\u2028\u202e\x1b")),
    min_size=1,
    max_size=120,
)
one_line = awkward.map(lambda text: " ".join(text.replace("\0", "").split()) or "x")
names = one_line.map(
    lambda text: "n" + "".join(c for c in text if c.isprintable() and c not in "/\\").strip()
)
said = awkward.map(lambda text: text.replace("\0", "") + "x")


def strings(tree: ast.AST) -> set[str]:
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def shape(tree: ast.AST) -> str:
    """The program without the texts and numbers in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = type(node.value).__name__
    return ast.dump(tree)


def told(scenario: str, draw: Any) -> dict[str, Any]:
    """Awkward answers."""
    more: dict[str, Any] = {
        "base_model": draw(one_line),
        "project": draw(names),
        "name": draw(names),
    }
    if scenario == "inline":
        more["examples"] = [
            [{"role": "user", "content": draw(said)}, {"role": "assistant", "content": draw(said)}]
        ]
    if scenario == "distillation":
        more |= {"teacher": draw(one_line), "prompts": [draw(one_line), draw(one_line)]}
    return more


def wanted(more: dict[str, Any]) -> set[str]:
    found = {more["base_model"], more["project"], more["name"]}
    found |= {m["content"] for one in more.get("examples", []) for m in one}
    return found | {more.get("teacher", more["name"])} | set(more.get("prompts", []))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scripts")


@pytest.mark.fault(35)
@pytest.mark.parametrize(("scenario", "backend", "framework"), MATRIX)
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_answer_stays_what_it_is(
    scenario: str, backend: str, framework: str, folder: Path, data: st.DataObject
) -> None:
    path = f"/rows/{data.draw(one_line)}.jsonl"
    more = told(scenario, data.draw)
    answers = complete(folder, scenario, data=path, backend=backend, framework=framework, **more)
    text = script(answers)
    tree = ast.parse(text)
    compile(text, "sft_train.py", "exec")
    expected = wanted(more) | ({path} if scenario == "jsonl" else set())
    assert expected <= strings(tree)
    harmless: dict[str, Any] = {}
    if scenario == "distillation":
        harmless["prompts"] = ["why?", "how?"]
    plain = complete(folder, scenario, backend=backend, framework=framework, **harmless)
    assert shape(tree) == shape(ast.parse(script(plain))), "an answer became code"


@pytest.mark.fault(35)
def test_all_of_them_are_formatted_and_lint_clean(folder: Path) -> None:
    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(options=st.sampled_from(MATRIX), data=st.data())
    def write(options: tuple[str, str, str], data: st.DataObject) -> None:
        scenario, backend, framework = options
        more = told(scenario, data.draw)
        answers = complete(folder, scenario, backend=backend, framework=framework, **more)
        name = f"awkward_{len(list(folder.glob('*.py')))}.py"
        (folder / name).write_text(script(answers), encoding="utf-8")

    write()
    long = {"role": "assistant", "content": "a long reply " * 20}
    short = {"role": "user", "content": "e" * 60}
    for scenario, backend, framework in MATRIX:
        more: dict[str, Any] = {"epochs": "3", "lr": "0.001"} if scenario == "jsonl" else {}
        if scenario == "inline":
            system = {"role": "system", "content": "s"}
            more = {"examples": [EXAMPLE, [system, *EXAMPLE, short, long]]}
        answers = complete(folder, scenario, backend=backend, framework=framework, **more)
        name = f"plain_{scenario}_{backend}_{framework}.py"
        (folder / name).write_text(script(answers), encoding="utf-8")
    for words in (["format", "--check"], ["check", "--select", RUFF, "--ignore", "RUF001"]):
        done = subprocess.run(
            [Path(sys.executable).with_name("ruff"), *words, "--isolated", "--no-cache", "."],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]


@pytest.mark.parametrize(("scenario", "backend", "framework"), MATRIX)
def test_it_is_whole(scenario: str, backend: str, framework: str, folder: Path) -> None:
    text = script(complete(folder, scenario, backend=backend, framework=framework))
    assert "await backend.close()" in text
    assert "await model.register(backend)" in text
    for words in (
        "SFT TRAINING COMPLETE",
        "Training step:",
        "Inference URL:",
        "openai SDK",
        "curl usage",
    ):
        assert words in text
    assert ("gpu_memory_utilization" in text) == (backend == "local"), "it has no object elsewhere"
    assert ("import art\n" in text) == (framework == "art")
    assert ("from hone import" in text) == (framework == "hone")
    if scenario == "distillation":
        assert f'os.environ["{KEY}"]' in text
        assert text.index("model.register") < text.index("await ask_teacher()"), "paid for nothing"


def test_imports_of_art_are_arts_own(folder: Path) -> None:
    local = script(complete(folder, "jsonl", framework="art"))
    assert (
        "from art.local import LocalBackend\nfrom art.utils.sft import train_sft_from_file\n"
        in local
    )
    assert "art.dev.InternalModelConfig(" in local
    remote = script(complete(folder, "distillation", framework="art", backend="serverless"))
    assert "from art.serverless.backend import ServerlessBackend\n" in remote
    assert "from art.utils.sft import create_sft_dataset_iterator\n" in remote


def test_hyperparameters_stand_as_they_were_chosen(folder: Path) -> None:
    text = script(complete(folder, "jsonl", rows=1500, epochs="2", warmup_ratio="0.1"))
    for line in (
        "epochs=2,",
        "batch_size=2,",
        "peak_lr=2e-4,",
        'schedule_type="linear",',
        "warmup_ratio=0.1,",
    ):
        assert f"            {line}\n" in text
    text = script(complete(folder, "inline"))
    assert "learning_rate=1e-5" in text
    assert "batch_size=1" in text


def test_prompts_may_stay_in_their_file(folder: Path) -> None:
    prompts = folder / 'what\'s "asked".txt'
    prompts.write_text("one\n\n two \n", encoding="utf-8")
    answers = complete(folder, "distillation", prompts=f"@{prompts}")
    assert answers.rows == 2
    assert str(prompts) in strings(ast.parse(script(answers)))
