"""What a child process gets of the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import hone
from hone.config.surroundings import child_environment


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "OPENAI_API_KEY", "my_secret", "DB_PASSWORD", "AWS_CREDENTIALS"]
)
def test_what_is_named_like_a_secret_stays_here(name: str) -> None:
    found = child_environment({name: "s3cr3t", "TOKENIZERS_PARALLELISM": "false", "LANG": "C"})
    assert name not in found
    assert found["LANG"] == "C"
    assert found["TOKENIZERS_PARALLELISM"] == "false"


def test_a_child_finds_this_very_package(tmp_path) -> None:
    environment = child_environment({**os.environ, "PYTHONPATH": str(tmp_path)})
    said = subprocess.run(
        [sys.executable, "-c", "import hone, sys; print(hone.__file__); print(*sys.path, sep='\\n')"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    assert said[0] == hone.__file__
    assert str(tmp_path) in said
