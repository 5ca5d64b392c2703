"""A project folder with the workflows, tiny models under the names that documents use, and a way to type commands in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.folders import model_folder

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"
LONGEST_ROW = 16_384
NAMES = ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen3-8B")
"""Models that the document names; here they are tiny folders of that name."""


def agent_rows(count: int) -> list[dict[str, object]]:
    """Conversations as a simulator writes them: a call, its result, an answer."""
    rows: list[dict[str, object]] = []
    for place in range(count):
        call = {"name": "get_order", "arguments": {"order_id": f"#W{place}"}}
        rows.append(
            {
                "conversations": [
                    {"from": "human", "value": f"the red cat {place}"},
                    {"from": "function_call", "value": json.dumps(call)},
                    {"from": "observation", "value": '{"status": "sent"}'},
                    {"from": "gpt", "value": f"the dog sings {place % 3}"},
                ],
                "system": "the cat and the dog of a retail shop",
            }
        )
    return rows


def project(folder: Path, *, rows: int = 6) -> Path:
    """The workflows in a folder, tiny models, and rows wherever the document's commands look for them."""
    shutil.copytree(
        WORKFLOWS, folder / "workflows", ignore=shutil.ignore_patterns("workdir", "saves")
    )
    first = model_folder(folder / NAMES[0], max_position_embeddings=LONGEST_ROW)
    for name in NAMES[1:]:
        shutil.copytree(first, folder / name)
    text = json.dumps(agent_rows(rows))
    for name in (
        "Simia_SFT/Tau2/output/tau2_base_hardcase_200.json", "path/to/processed_data.json", "data.json", "input.json",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def typed(
    command: str, folder: Path, *, hone: Path | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Type a command in a folder, with `hone` and `python` on the PATH as they are where Hone is installed."""
    programs = Path(sys.executable).parent
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HONE_")},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "HONE_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PYTHON": sys.executable,
        **more,
    }
    if hone is not None:
        environment["HONE"] = str(hone)
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240
    )  # fmt: skip


def shows_instead_of_training(folder: Path) -> Path:
    """A `hone` that shows the configuration in force where it is asked to train; every other verb is real."""
    hone = Path(sys.executable).parent / "hone"
    script = folder / "hone-that-shows"
    script.write_text(
        f'#!/usr/bin/env bash\nif [[ $1 == train ]]; then shift; exec "{hone}" config show --json "$@"; fi\n'
        f'exec "{hone}" "$@"\n'
    )
    script.chmod(0o755)
    return script
