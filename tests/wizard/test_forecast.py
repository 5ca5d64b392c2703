"""Memory and time: the plan's own figures where the model is here, and nothing invented where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.wizard.answers import Answers
from hone.wizard.forecast import forecast
from tests.folders import chat_rows, model_folder
from tests.wizard.complete import complete


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))


def answers(folder: Path, scenario: str = "jsonl", **more: Any) -> Answers:
    data = chat_rows(folder / "rows.jsonl", 6)
    told = {"base_model": str(folder / "model"), "backend": "local", **more}
    return complete(folder, scenario, rows=6, data=str(data), **told)


def test_a_model_that_is_here_is_planned(tmp_path: Path) -> None:
    model_folder(tmp_path / "model")
    memory, time = forecast(answers(tmp_path))
    assert memory.startswith("training takes ")
    assert "of memory at its fullest" in memory
    assert time.startswith("time: ")


def test_a_model_that_is_not_here_is_said_to_be_so(tmp_path: Path) -> None:
    assert forecast(answers(tmp_path)) == [
        "memory and time: not known before the base model's files are here"
    ]


@pytest.mark.parametrize("more", [{"backend": "serverless"}, {"framework": "art"}])
def test_what_others_compute_is_not_foretold(tmp_path: Path, more: dict[str, str]) -> None:
    assert forecast(answers(tmp_path, **more)) == []


def test_what_cannot_be_trained_is_said_before_the_script_is_run(tmp_path: Path) -> None:
    model_folder(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    (said,) = forecast(answers(tmp_path))
    assert said.startswith("warning: this cannot be trained as it is: ")
