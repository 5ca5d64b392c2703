"""Every command block of the guide to SFT-Play, run as it stands: in a folder of `hone new`, and as in the repository.

Models are tiny folders under the names that the guide uses. Where a block needs a GPU it says so with exit code 4.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from hone.recipes.new_project import new_project
from tests.folders import model_folder
from tests.workflows.desk import ROOT, typed

DOCUMENT = (
    Path(os.environ.get("HONE_SHARED", ROOT.parent / "shared"))
    / "reference/documents/sft_play_guide.md"
)
NAMES = tuple(f"Qwen/Qwen2.5-{size}-Instruct" for size in ("1.5B", "3B", "7B"))
OWN_CONFIG = """\
model:
  name: "Qwen/Qwen2.5-3B-Instruct"
  max_seq_len: 512

tuning:
  mode: "qlora"
  backend: "bnb"
  lora:
    r: 16
    alpha: 32
    dropout: 0.1

train:
  epochs: 3
  learning_rate: 2e-4
  batch_size: 4
  eval_strategy: "steps"
  eval_steps: 100
"""
TRAINED = "make process\nmake train CONFIG=configs/run_bnb.yaml TUNING_MODE=lora"
GPU = 4  # the exit code where something is not on this machine
BLOCKS: dict[str, tuple[str, str, int]] = {
    # name: what was done before, the block, the exit code of its last line
    "quick start": (
        "",
        "# Generate sample dataset and start training\n./workflows/quick_start.sh\n\n"
        "# Manual training with sample data\nmake process\nmake train-bnb-tb",
        0,
    ),
    "step by step": (
        "",
        "# 1. Process raw data into training format\nmake process\n\n# 2. (Optional) Add style instructions\n"
        'make style STYLE="Answer in a friendly, helpful tone"\n\n# 3. Start training with monitoring\n'
        "make train-bnb-tb\n\n# 4. Monitor progress at http://localhost:6006",
        0,
    ),
    "training commands": (
        "make process",
        "# Single GPU training\nmake train-bnb-tb              # BitsAndBytes backend (stable)\n"
        "make train-unsloth-tb          # Unsloth backend (faster)\n\n# Multi-GPU training\n"
        "make train-distributed-tb      # Auto-detect GPUs\n"
        "make train-deepspeed-tb        # Maximum memory efficiency",
        GPU,
    ),
    "own config": ("make process", "make train CONFIG=configs/my_sft_config.yaml", 0),
    "overrides": (
        "make process",
        "# Override learning rate and epochs\n"
        "make train CONFIG=configs/run_bnb.yaml TRAIN_LEARNING_RATE=1e-4 TRAIN_EPOCHS=5\n\n"
        "# Override model and batch size\n"
        'make train CONFIG=configs/run_bnb.yaml MODEL_NAME="Qwen/Qwen2.5-7B-Instruct" TRAIN_BATCH_SIZE=2',
        0,
    ),
    "common overrides": (
        "make process",
        "# For smaller GPUs (reduce memory)\n"
        "make train CONFIG=configs/run_bnb.yaml MODEL_MAX_SEQ_LEN=256 TRAIN_BATCH_SIZE=2\n\n"
        "# For faster training (reduce quality)\n"
        "make train CONFIG=configs/run_bnb.yaml TRAIN_EPOCHS=1 TRAIN_EVAL_STEPS=200\n\n"
        "# For better quality (increase training)\n"
        "make train CONFIG=configs/run_bnb.yaml TRAIN_EPOCHS=5 TRAIN_LEARNING_RATE=1e-4",
        0,
    ),
    "style": (
        "make process",
        '# Train with specific persona\nmake style STYLE="You are an expert in machine learning. Be concise and '
        'technical."\nmake train-bnb-tb\n\n# Train with communication style\n'
        'make style STYLE="Answer in a friendly, conversational tone. Use simple language."\nmake train-bnb-tb',
        0,
    ),
    "evaluate": (
        TRAINED,
        "# Evaluate on validation set\nmake eval\n\n# Quick evaluation (200 samples)\nmake eval-quick\n\n"
        "# Interactive testing\nmake infer",
        0,
    ),
    "test inputs": (
        TRAINED,
        '# Create test inputs\necho "What is machine learning?" > test_inputs.txt\n'
        'echo "Explain neural networks." >> test_inputs.txt\n\n# Batch inference\nmake infer-batch',
        0,
    ),
    "memory": ("", "# Check GPU usage\nmake memory-check\n\n# Monitor training progress\n# Visit: http://localhost:6006", 0),
}  # fmt: skip
EVERY = [
    "process",
    "style",
    "render",
    "full-pipeline",
    "train",
    "train-bnb",
    "train-bnb-tb",
    "train-unsloth",
    "train-unsloth-tb",
    "train-distributed",
    "train-distributed-tb",
    "train-deepspeed",
    "train-deepspeed-tb",
    "tensorboard",
    "tb-stop",
    "eval",
    "eval-quick",
    "eval-val",
    "eval-test",
    "eval-full",
    "infer",
    "infer-interactive",
    "infer-batch",
    "merge",
    "merge-bf16",
    "memory-check",
    "check-data",
    "dapt-docx",
    "dapt-train",
    "help",
]


@pytest.mark.skipif(not DOCUMENT.is_file(), reason=f"no document at {DOCUMENT}")
def test_no_block_of_the_guide_is_missing() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks = [block.strip() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
    assert blocks == [block for _, block, _ in BLOCKS.values()]
    (own,) = re.findall(r"```yaml\n# configs/my_sft_config.yaml\n(.*?)```", text, re.DOTALL)
    assert own == OWN_CONFIG


def fill(folder: Path) -> Path:
    """Rows, the guide's own configuration, and models under the guide's names."""
    first = model_folder(folder / NAMES[0], max_position_embeddings=2048)
    for name in NAMES[1:]:
        shutil.copytree(first, folder / name)
    (folder / "configs/my_sft_config.yaml").write_text(OWN_CONFIG)
    (folder / "data/raw").mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "workflows/sample_rows.jsonl", folder / "data/raw/train_me.jsonl")
    return folder


@pytest.fixture(params=["a project, with spaces", "the repository"])
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / str(request.param)
    if request.param == "the repository":
        folder.mkdir()
        shutil.copy(ROOT / "Makefile", folder)
        for name in ("workflows", "configs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("workdir", "saves"))  # fmt: skip
    else:
        new_project(folder)
    return fill(folder)


def make(words: str, folder: Path, port: int = 6006) -> subprocess.CompletedProcess[str]:
    """Type commands as they stand; every `make` speaks to the Hone that is tested, of which nothing is installed first."""
    own = f'export MAKEFLAGS="--no-print-directory HONE=hone READY= TB_PORT={port}"\n'
    return typed(f"set -o pipefail\n{own}{words}", folder, OMP_NUM_THREADS="1")


@pytest.fixture
def port(desk: Path) -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_of_the_guide(desk: Path, port: int, name: str) -> None:
    before, block, code = BLOCKS[name]
    try:
        if before:
            done = make(f"set -e\n{before}", desk, port)
            assert done.returncode == 0, done.stderr[-1500:]
        for line in block.splitlines():
            if line.strip() and not line.startswith("#"):
                # The same run again with other settings is begun anew, as its message advises.
                again = " FRESH=1" if line.startswith("make train") and (desk / "outputs").is_dir() else ""  # fmt: skip
                command, mark, comment = line.partition("  #")
                done = make(f"{command}{again}{mark}{comment}", desk, port)
                may_lack = "unsloth" in line or (
                    "deepspeed" in line and importlib.util.find_spec("deepspeed") is None
                )
                assert done.returncode == (2 if may_lack else 0), (line, done.stderr[-1500:])
                assert not may_lack or f"Error {code}" in done.stderr, done.stderr[-600:]
    finally:
        make("make tb-stop", desk, port)
    assert not (desk / ".tensorboard.json").exists()


def test_the_style_is_what_is_trained_until_rows_are_processed_anew(tmp_path: Path) -> None:
    new_project(tmp_path / "p")
    folder = fill(tmp_path / "p")
    done = make("set -e\nmake process\nmake style STYLE=\"Be kind, 'friend'\"", folder)
    assert done.returncode == 0, done.stderr
    shown = typed("hone config get data.path configs/run_bnb.yaml", folder)
    assert shown.stdout == "data/processed_with_style/train.jsonl\n"
    first = (folder / "data/processed_with_style/train.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["messages"][0]["content"].startswith("Be kind, 'friend'\n\n")
    make("make process", folder)
    shown = typed("hone config get data.path configs/run_bnb.yaml", folder)
    assert shown.stdout == "data/processed/train.jsonl\n"


def test_settings_of_make_take_effect_or_are_refused(tmp_path: Path) -> None:
    new_project(tmp_path / "p")
    folder = fill(tmp_path / "p")
    words = (
        """TRAIN_LEARNING_RATE=1e-4 MODEL_NAME="it's a \\$HOME #1" train.epochs=5 TUNING_LORA_R=4"""
    )
    done = make(f"make -n train CONFIG='my config.yaml' {words}", folder)
    command = done.stdout.strip()
    shown = typed(command.replace("hone train", "printf '%s\\n'", 1), folder)
    assert sorted(shown.stdout.splitlines()) == sorted(
        ["my config.yaml", "TRAIN_LEARNING_RATE=1e-4", "MODEL_NAME=it's a $HOME #1", "train.epochs=5", "TUNING_LORA_R=4"]
    )  # fmt: skip
    words = "TRAIN_LEARNING_RATE=1e-4 TRAIN_EPOCHS=5 TUNING_LORA_R=4 MODEL_MAX_SEQ_LEN=99"
    shown = typed(f"hone config show --json configs/run_bnb.yaml {words}", folder)
    config = json.loads(shown.stdout)["config"]
    assert (config["train"]["learning_rate"], config["train"]["epochs"]) == (1e-4, 5)
    assert (config["tuning"]["lora"]["r"], config["data"]["max_length"]) == (4, 99)
    done = make("make train TRAIN_LERNING_RATE=1", folder)
    assert "did you mean 'TRAIN_LEARNING_RATE'" in done.stderr
    assert "Error 2" in done.stderr
    done = make("make process TRAIN_EPOCHS=1", folder)
    assert done.returncode == 2
    assert "TRAIN_EPOCHS: only the train targets" in done.stderr


def test_every_target_is_there_in_both_places(tmp_path: Path) -> None:
    new_project(tmp_path / "p")
    for folder in (tmp_path / "p", ROOT):
        for name in EVERY:
            done = make(f"make -n {name} CONFIG=configs/run_bnb.yaml RUN=r", folder)
            assert done.returncode == 0, (name, done.stderr)
            assert name == "help" or "hone " in done.stdout, (name, done.stdout)


def test_a_folder_that_has_such_files_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("mine")
    done = typed(f"hone new '{tmp_path}'", tmp_path)
    assert done.returncode == 2
    assert "Makefile already" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Makefile"]


def test_two_ranks_where_there_is_no_gpu(tmp_path: Path) -> None:
    new_project(tmp_path / "p")
    done = make("make -n train-distributed", tmp_path / "p")
    cards = shutil.which("nvidia-smi")
    assert cards or "--nproc 2" in done.stdout
    done = make(
        "make -n train-deepspeed NUM_GPUS=8 DEEPSPEED_CONFIG='my zero.json'", tmp_path / "p"
    )
    assert "--nproc 8 --deepspeed 'my zero.json'" in done.stdout
