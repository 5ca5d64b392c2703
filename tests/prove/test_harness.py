"""A task of the user's own in EleutherAI's harness itself: an interpreter that has it is named by HONE_LMEVAL_PYTHON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.folders import model_folder
from tests.workflows.desk import ROOT

PYTHON = os.environ.get("HONE_LMEVAL_PYTHON")
TASK = """\
task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["one", "two"]
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""


@pytest.mark.slow
@pytest.mark.skipif(PYTHON is None, reason="HONE_LMEVAL_PYTHON names no interpreter with lm-eval")
def test_a_task_of_ones_own_is_run_on_this_machine(tmp_path: Path) -> None:
    model_folder(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"{n}?", "answer": ["one", "two"][n % 2]}) + "\n" for n in range(8)))  # fmt: skip
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/colours.yaml").write_text(TASK.format(rows=rows))
    command = [str(PYTHON), "-m", "hone", "evaluate", "model", "--task", "colours", "--task-folder", "tasks", "--out", "out"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=280)  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]
    told = json.loads((tmp_path / "out/result.json").read_text())
    assert 0 <= told["tasks"]["tuned"]["colours/acc"] <= 1
