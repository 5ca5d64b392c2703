"""The quick reference itself: each of its Python blocks, YAML blocks and commands is taken from its text and run.

`app.sft` becomes `hone`; its model and data sets are folders of the same names, made here.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import hone
from hone import SFTCallback, SFTConfig, SFTTrainer
from hone.runs.events import read_events
from tests.unit.desk import ROOT, gpt2_folder, lay

SHARED = Path(os.environ.get("HONE_SHARED", ROOT.parent / "shared"))
DOCUMENT = SHARED / "reference" / "documents" / "sft_trainer_quick_reference.md"
TEXT = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.is_file() else ""

pytestmark = pytest.mark.skipif(not TEXT, reason=f"the quick reference is not at {DOCUMENT}")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
    return [block.replace("app.sft", "hone") for name, block in found if name == language]


PYTHON, YAML = blocks("python"), blocks("yaml")
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in blocks("bash")
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gpt2_folder(tmp_path_factory.mktemp("model") / "gpt2")


@pytest.fixture
def desk(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(lay(folder, model))
    (folder / "config.yaml").write_text(YAML[0])
    return folder


def test_the_document_is_read_whole() -> None:
    assert (len(PYTHON), len(YAML), len(COMMANDS)) == (10, 2, 7)


def quick() -> SFTConfig:
    """What a block that begins in the middle finds as `config`: short, so that many can run."""
    return SFTConfig(
        base_model="gpt2", dataset_name="tatsu-lab/alpaca", dataset_format="alpaca", output_dir="./outputs",
        max_steps=1, mixed_precision=None,
    )  # fmt: skip


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_a_python_block_runs(desk: Path, block: str) -> None:
    """A block that trains does; one that makes a callback or sets keys is trained with."""
    config = quick()
    names: dict[str, Any] = {name: getattr(hone, name) for name in hone.__all__} | {
        "config": config
    }
    tree = ast.parse(block)
    last = tree.body[-1]
    made: Any = None
    if isinstance(last, ast.Expr):
        made = eval(compile(ast.Expression(last.value), "block", "eval"), names)
    else:
        exec(compile(tree, "block", "exec"), names)
    result = names.get("result")
    if result is None:
        config = names["config"]
        before = config.to_dict()
        config.max_steps = 1
        callbacks = [made] if isinstance(made, SFTCallback) else []
        result = SFTTrainer(config, callbacks=callbacks).train()
        assert callbacks or before != quick().to_dict(), "the block set something"
    folder = Path(result["output_dir"])
    assert load_file(folder / "adapter_model.safetensors")
    assert result["train_loss"] > 0
    steps = [e for e in read_events(folder / "events.jsonl") if e.name == "step"]
    assert len(steps) == result["metrics"]["steps"]
    assert ("val_loss" in result["metrics"]) == (names["config"].validation_split > 0)
    assert (folder / "merged" / "config.json").is_file() == names["config"].save_merged_model


@pytest.mark.parametrize("text", YAML, ids=range(len(YAML)))
def test_a_yaml_block_trains_as_it_stands(desk: Path, text: str) -> None:
    (desk / "config.yaml").write_text(text)
    config = SFTConfig.from_yaml("config.yaml")
    wanted = dict(re.findall(r"^(\w+): \"?([^\"#\n]+?)\"?(?:\s+#.*)?$", text, flags=re.MULTILINE))
    assert {key: str(getattr(config, key)).lower() for key in wanted if key[:4] == "use_"} == {
        key: value for key, value in wanted.items() if key[:4] == "use_"
    }
    result = SFTTrainer(config).train()
    assert result["metrics"]["steps"] >= 3
    assert load_file("outputs/adapter_model.safetensors")
    assert Path("outputs/merged/model.safetensors").is_file() == config.save_merged_model


def test_the_tree_of_files_is_the_documents(desk: Path) -> None:
    (tree,) = [b for b in blocks("") if "adapter_model.safetensors" in b]
    names = re.findall(r"[├└]── (\S+)", tree)
    assert len(names) == 6
    config = quick()
    config.save_merged_model = True
    SFTTrainer(config).train()
    for name in names:
        path = Path("outputs") / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), name


def test_the_documented_defaults_are_in_force() -> None:
    told = re.findall(r"^- `(\w+)`:.*\(default: (.+?)\)$", TEXT, flags=re.MULTILINE)
    assert len(told) >= 13
    config = SFTConfig(base_model="m", dataset_name="d", dataset_format="chat")
    for key, value in told:
        assert getattr(config, key) == ast.literal_eval(value.capitalize() if value in ("true", "false") else value), key  # fmt: skip


def test_advice_in_running_text_names_keys_that_take_the_value(desk: Path) -> None:
    said = re.findall(r"`(\w+=[^`]+)`", TEXT)
    assert len(said) >= 8
    for words in said:
        key, _, value = words.partition("=")
        config = quick()
        setattr(config, key, ast.literal_eval(value))
        assert getattr(config, key) == ast.literal_eval(value)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_or_names_what_exists(desk: Path, command: str) -> None:
    words = shlex.split(command)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    if words[0] == "python":
        done = subprocess.run(
            [sys.executable, *words[1:]],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "a step   16 rows" in done.stdout
        assert "  adapter_model.safetensors" in done.stdout
    elif (
        words[0] == "pytest"
    ):  # run by whoever runs the suite; here: that there is something to run
        paths = [str(p) for word in words[1:] if word.startswith("tests") for p in ROOT.glob(word)]
        assert paths
        slow = words[-2:] == ["-m", "slow"]
        for path in paths:
            text = Path(path).read_text(encoding="utf-8")
            assert re.search(r"^def test_", text, flags=re.MULTILINE), path
            marked = re.search(r"^pytestmark = pytest\.mark\.slow", text, flags=re.MULTILINE)
            assert (marked is not None) == slow, path
    elif words[:2] == ["pip", "install"]:
        (extra,) = re.findall(r"\[(\w+)\]", words[-1])
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert {"bitsandbytes", "wandb"} <= {
            re.split(r"[>=<]", one)[0] for one in project["optional-dependencies"][extra]
        }
    else:
        assert words == ["cd", "backend"], "the documents' own folder: nothing of ours"
