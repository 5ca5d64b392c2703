"""What the documentation tells a reader to type is typed: each page's blocks in their order, in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hone.cli.main import run
from tests.docs.page import ROOT, Block, blocks, pages, words_of
from tests.folders import chat_rows, model_folder

TEMPLATE = ROOT / "src" / "hone" / "data" / "templates" / "qwen3.jinja"
SHELL = set("|&;<>$`")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose template writes tools and reasoning."""
    folder = model_folder(tmp_path_factory.mktemp("docs") / "MODEL", max_position_embeddings=4096)
    text = "{%- set begin, end = '', '<|im_end|>' -%}" + TEMPLATE.read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def desk(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a reader has it: a model, rows, the examples of the checkout, and `hone` as a command."""
    folder = tmp_path / "desk"
    (folder / "bin").mkdir(parents=True)
    (folder / "MODEL").symlink_to(model)
    chat_rows(folder / "rows.jsonl")
    for name in ("examples", "workflows"):
        left_out = shutil.ignore_patterns("saves", "workdir")
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name, module in (("hone", "-m hone"), ("python", "")):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HONE_TRAIN_PRECISION", "fp32")  # not measured anew in each run
    monkeypatch.chdir(folder)
    return folder


def lay(block: Block, folder: Path) -> None:
    """Write the file that the page shows."""
    path = folder / block.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


def type_in(block: Block, folder: Path) -> None:
    """Do what a block says; every command must end well, the last one as the page says."""
    if block.language == "python":
        assert _program(sys.executable, "-c", block.text) == 0, f"line {block.line}"
    commands = list(block.commands()) if block.language == "sh" else []
    for place, command in enumerate(commands):
        wanted = block.exit_code if place == len(commands) - 1 else 0
        words = words_of(command)
        if words[0] == "hone" and not SHELL & set(command.partition("#")[0]):
            code = run(words[1:])
        else:
            code = _program("bash", "-c", command)
        assert code == wanted, f"line {block.line}: {command}"


def _program(*words: str) -> int:
    return subprocess.run(words, check=False, timeout=280).returncode


def follow(page: Path, folder: Path, *, slow: bool) -> None:
    """Go through a page from top to bottom, passing over what is slow unless that is asked for."""
    for block in blocks(page):
        if block.file:
            lay(block, folder)
        elif block.is_run and (slow or block.remark != "slow"):
            type_in(block, folder)


def is_run(page: Path, *, slow: bool) -> bool:
    """Whether a page has blocks to run, or such that are slow."""
    return any(one.is_run and (one.remark == "slow") == slow for one in blocks(page))


def name_of(page: Path) -> str:
    return page.stem


@pytest.mark.parametrize("page", [p for p in pages() if is_run(p, slow=False)], ids=name_of)
def test_a_reader_can_type_what_a_page_says(page: Path, desk: Path) -> None:
    follow(page, desk, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in pages() if is_run(p, slow=True)], ids=name_of)
def test_the_long_ones_too(page: Path, desk: Path) -> None:
    follow(page, desk, slow=True)


def test_a_command_that_fails_is_noticed(desk: Path) -> None:
    with pytest.raises(AssertionError, match=re.escape("hone validate absent.jsonl")):
        type_in(Block("sh", "hone validate absent.jsonl\n", 1, ""), desk)
    with pytest.raises(AssertionError, match="line 1"):
        type_in(Block("python", "raise SystemExit(3)\n", 1, ""), desk)
