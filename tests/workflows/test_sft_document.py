"""Every command block of the document on SFT with LLaMA-Factory, run as it stands on tiny models of the names it uses.

Paths map so: `Simia_SFT/sft_training/` is `workflows/`, `llamafactory-cli train` is `hone train`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

from hone.runs.events import read_events
from tests.workflows.desk import ROOT, project, typed

DOCUMENT = (
    Path(os.environ.get("HONE_SHARED", ROOT.parent / "shared"))
    / "reference/documents/sft_with_llama_factory.md"
)
RAW = "Simia_SFT/Tau2/output/tau2_base_hardcase_200.json"
BLOCKS = {
    "full pipeline": f"bash workflows/run_sft.sh {RAW}",
    "skip processing": "bash workflows/run_sft.sh path/to/processed_data.json --skip-process",
    "model and hyperparameters": (
        "bash workflows/run_sft.sh data.json \\\n    --model Qwen/Qwen3-8B \\\n    --template qwen \\\n"
        "    --epochs 3 \\\n    --lr 0.00001 \\\n    --batch-size 2"
    ),
    "zero3": f"bash workflows/run_sft.sh {RAW} \\\n    --deepspeed workflows/ds_zero3.json",
    "zero2": f"bash workflows/run_sft.sh {RAW} \\\n    --deepspeed workflows/ds_zero2.json",
    "custom config": (
        "bash workflows/run_sft.sh data.json \\\n    --skip-process \\\n    --config path/to/my_config.yaml"
    ),
    "process": "bash workflows/process_data_pipeline.sh input.json output_processed.json",
    "prepare": (
        "python workflows/prepare_sft_data.py \\\n    --input output_processed.json \\\n"
        "    --dataset-name tau2_sft \\\n    --output-dir ./workdir"
    ),
    "launch": "hone train sft_config.yaml",
}  # fmt: skip
SAVED = "workflows/saves/Qwen2.5-7B-Instruct/tau2_sft"


@pytest.mark.skipif(not DOCUMENT.is_file(), reason=f"no document at {DOCUMENT}")
def test_no_block_of_the_document_is_missing() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for theirs, ours in (
        ("Simia_SFT/sft_training/", "workflows/"),
        ("Simia_SFT/Tau2/process_data_pipeline.sh", "workflows/process_data_pipeline.sh"),
        ("llamafactory-cli train", "hone train"),
    ):
        text = text.replace(theirs, ours)
    blocks = [block.strip() for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
    assert blocks == list(BLOCKS.values())


@pytest.fixture(params=["plain", "with spaces in it"])
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / request.param
    folder.mkdir()
    return project(folder)


def trained(desk: Path, block: str, saved: str) -> list[float]:
    """Run a block; the losses of its steps."""
    done = typed(BLOCKS[block], desk)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (desk / saved / "model.safetensors").is_file()
    assert "hone chat " in done.stdout
    assert Path(saved).name in done.stdout.splitlines()[-1], "it says where the model lies"
    return [one["loss"] for one in read_events(desk / saved / "events.jsonl") if one.name == "step"]


def test_a_block_runs_where_the_path_has_spaces(tmp_path: Path) -> None:
    """One of them among the fast tests; the others are proofs."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    project(folder)
    assert len(trained(folder, "full pipeline", SAVED)) == 6, "6 rows, 2 a step, 2 passes"


@pytest.mark.slow
def test_processed_rows(desk: Path) -> None:
    assert len(trained(desk, "skip processing", SAVED)) == 6


@pytest.mark.slow
def test_another_model_and_other_numbers(desk: Path) -> None:
    losses = trained(desk, "model and hyperparameters", "workflows/saves/Qwen3-8B/tau2_sft")
    assert len(losses) == 6, "6 rows, 4 a step, 3 passes"


@pytest.mark.slow
@pytest.mark.parametrize("block", ["zero2", "zero3"])
def test_deepspeed(desk: Path, block: str) -> None:
    if importlib.util.find_spec("deepspeed") is not None:
        assert len(trained(desk, block, SAVED)) == 6
        return
    done = typed(BLOCKS[block], desk)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "pip install" in done.stderr


@pytest.mark.slow
def test_a_custom_file(desk: Path) -> None:
    (desk / "path/to/my_config.yaml").write_text(
        "model_name_or_path: Qwen/Qwen3-8B\nstage: sft\ndo_train: true\nfinetuning_type: lora\ndataset: tau2_sft\n"
        "dataset_dir: workflows/workdir/tau2_sft\ntemplate: qwen\ncutoff_len: 512\noutput_dir: mine\n"
        "per_device_train_batch_size: 3\nmax_steps: 2\n"
    )
    done = typed(BLOCKS["custom config"], desk)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (desk / "mine/adapter_model.safetensors").is_file()
    assert "mine" in done.stdout.splitlines()[-1]
    assert not (desk / "workflows/saves").exists()


@pytest.mark.slow
def test_step_by_step(desk: Path) -> None:
    for block in ("process", "prepare"):
        done = typed(BLOCKS[block], desk)
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((desk / "workdir/dataset_info.json").read_text())["tau2_sft"]
    edited = (desk / "workflows/sft_config.yaml").read_text()
    edited = re.sub(r"(?m)^dataset_dir: .*$", "dataset_dir: ./workdir", edited)
    (desk / "sft_config.yaml").write_text(edited)
    assert len(trained(desk, "launch", SAVED)) == 6
