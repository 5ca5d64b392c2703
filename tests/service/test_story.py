"""A user's whole story against the service itself: the wizard's script trains there, and what it prints works as printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hone
from hone.service.shift import Slots
from hone.wizard.script import script
from tests.folders import chat_rows, model_folder
from tests.service.served import serving
from tests.service.test_node_client import modules as modules
from tests.service.test_node_client import told
from tests.wizard.complete import complete

SOURCES = str(Path(hone.__file__).parents[1])
SHORT = "max_tokens=6, temperature=0,"


def section(printed: str, title: str) -> str:
    """What stands under a heading of the closing block."""
    return printed.partition(f"--- {title} ---\n")[2].partition("\n---")[0].strip()


@pytest.mark.slow
def test_the_wizards_script_and_what_it_prints(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "tiny")
    data = chat_rows(tmp_path / "rows.jsonl", 4)
    answers = complete(
        tmp_path, "jsonl", rows=4, data=str(data), backend="serverless", base_model="tiny", epochs="1",
        name="it's {x}", project="my project",
    )  # fmt: skip
    (tmp_path / "sft_train.py").write_text(script(answers), encoding="utf-8")
    with serving(tmp_path / "root", Slots(1, threads=1), models={"tiny": str(base)}) as served:
        about = {
            "HONE_BASE_URL": served.service.base_url,
            "HONE_API_KEY": served.key,
            "PYTHONPATH": SOURCES,
            "OMP_NUM_THREADS": "1",
        }
        environment = {**os.environ, **about}

        def run(*words: str) -> str:
            return subprocess.run(
                words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=280
            ).stdout  # fmt: skip

        printed = run(sys.executable, "sft_train.py")
        assert "Model:          my project/it's {x}@1\n" in printed
        assert served.key not in printed
        python = section(printed, "Python usage (openai SDK)")
        said = run(sys.executable, "-c", python.replace("    ],\n)", f"    ],\n    {SHORT}\n)"))
        words = section(printed, "curl usage").replace(
            '"messages"', '"max_tokens": 6, "temperature": 0, "messages"'
        )
        answer = run("bash", "-c", words)
    content = json.loads(answer)["choices"][0]["message"]["content"]
    assert content.rstrip("\n") == said.rstrip("\n")


@pytest.mark.slow
def test_the_node_client_trains_and_asks(modules: str, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "tiny")
    data = chat_rows(tmp_path / "rows.jsonl", 12)
    with serving(tmp_path / "root", Slots(1, threads=1), models={"tiny": str(base)}) as served:
        said = told(modules, served.service.base_url, served.key, str(data), "tiny", "chats")
    assert said["end"]["status"] == "succeeded"
    steps = [one["data"]["step"] for one in said["events"] if one["type"] == "metrics"]
    assert steps == [3, 2, 1]
    assert [line.split(",")[0] for line in said["csv"].split()] == ["step", "1", "2", "3"]
    assert said["chat"]["whole"]
    assert said["chat"]["whole"] == said["chat"]["streamed"]
