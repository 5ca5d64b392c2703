"""The reference is read off the code: what a run really says stands in it, and a page that is stale is found."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from docs_from_code import pages
from docs_from_code.errors import messages
from docs_from_code.events import said
from docs_from_code.source import escaped, wording
from hone.cli.main import run
from hone.config.fields import settings
from hone.runs.events import read_events
from tests.folders import chat_rows, model_folder


def test_a_page_that_is_not_what_the_code_says_is_found(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pages.FOLDER, tmp_path / "reference"))
    assert pages.outdated(folder) == []
    page = folder / "configuration.md"
    page.write_text(page.read_text().replace("at least 1", "at least 2", 1))
    (folder / "events.md").unlink()
    assert pages.outdated(folder) == ["configuration.md", "events.md"]
    assert pages.write(folder) == ["configuration.md", "events.md"]
    assert pages.outdated(folder) == []


def test_every_setting_has_its_heading_and_its_words() -> None:
    text = (pages.FOLDER / "configuration.md").read_text()
    for name, setting in settings().items():
        about = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert setting.description in about
        assert setting.environment in about


def test_what_a_run_says_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "model")
    chat_rows(tmp_path / "rows.jsonl")
    held_out = ("data.validation_split=0.2", "train.sample_steps=1", "train.sample_tokens=2")
    command = ("train", "rows.jsonl", "--model", "model", "train.max_steps=2", "--quiet", *held_out)
    assert run([*command, "--output", "run"]) == 0
    found = said()
    for event in read_events(tmp_path / "run" / "events.jsonl"):
        assert event.name in found
        unknown = set(event.fields) - set(found[event.name].counts) - {"not_finite"}
        assert not unknown or found[event.name].more, f"{event.name}: {unknown}"
    # A reader that guesses would let anything pass: the events with fixed fields are read off completely.
    assert not any(found[name].more for name in ("data", "plan", "rehearsed", "saved", "finished"))


def test_messages_are_read_with_their_gaps() -> None:
    texts = {"_REMEDY": ast.parse("'close it'", mode="eval").body}

    def read(source: str) -> str:
        return wording(ast.parse(source, mode="eval").body, texts)

    assert read("f'{path.name} is open: {_REMEDY}'") == "‹path.name› is open: close it"
    assert read("'one ' + ('two' if x else 'three')") == "one two / three"
    assert read("nearest(name, known)").startswith("the nearest name")
    assert read("f\"{', '.join(sorted(names))} are missing\"") == "‹names› are missing"
    assert escaped("a|b <c> `d_e` f_g") == r"a\|b \<c\> `d_e` f\_g"


def test_errors_are_found_with_their_remedies() -> None:
    told = {(one.kind, one.what): one.remedy for one in messages()}
    held = [remedy for (kind, what), remedy in told.items() if what.startswith("two files of rows")]
    assert held == ["name one; a setting is written key=value"]
    assert {kind for kind, _ in told} >= {"ConfigError", "DataError", "ModelError", "OutOfMemory"}
