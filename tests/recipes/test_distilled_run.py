"""From prompts to a trained model: teachers of this machine, the rows trained on, and the documents' own pattern."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone.cli.main import run
from hone.errors import ConfigError, DataError
from hone.recipes.distill import Order, distill
from hone.recipes.spending import Limits
from hone.recipes.teacher import Drawing
from tests.folders import model_folder
from tests.recipes.fake_teacher import FakeTeacher, fake_teacher

QUICK = ["train.precision=fp32", "compute.threads=1", "train.batch_size=4", "train.max_steps=2"]
KEY = "sk-very-secret-1234567890"


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTeacher]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    Path("prompts.txt").write_text("the red cat\nthe blue dog\nthe bird\nthe cat\n")
    with fake_teacher() as made:
        yield made


def words(teacher: FakeTeacher, *more: str) -> list[str]:
    named = ["distill", "prompts.txt", "--teacher", "big", "--base-url", teacher.url]
    return [*named, "--out", "rows.jsonl", "--api-key-env", "MINE", *more]


def test_straight_into_training(
    teacher: FakeTeacher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINE", KEY)
    folder = str(model_folder(Path("student")))
    into = ["--train", folder, "output.dir=run", *QUICK]
    assert run(words(teacher, "train.epochs=2")) == 2
    assert run(words(teacher, "--train", folder, "train.epoch=2")) == 2
    assert run(words(teacher, "--train", "nowhere/at/all")) == 4
    assert not teacher.calls  # what cannot train is said before anything is paid
    capsys.readouterr()
    assert run(words(teacher, *into)) == 0
    shown = capsys.readouterr().out
    assert "4 requests: 4 answered" in shown
    assert "wrote rows.jsonl: 4 rows" in shown
    assert "finished: 2 steps" in shown
    assert (Path("run") / "adapter_model.safetensors").is_file()
    assert run([*words(teacher, *into), "--json"]) == 0  # nothing is asked or trained again
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["missing"] == 0
    assert len(teacher.calls) == 4
    for path in Path().rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_model_of_this_machine_teaches(teacher: FakeTeacher) -> None:
    folder = str(model_folder(Path("big")))

    def order(**more: Any) -> Order:
        return Order(Path("prompts.txt"), folder, **{"out": Path("own.jsonl"), **more})

    drawing = Drawing(temperature=1.0, max_tokens=8, seed=3)
    # Random weights find no end: every answer is cut.
    with pytest.raises(DataError, match="no answer to learn from"):
        distill(order(samples=2, drawing=drawing), limits=Limits(max_tokens=4000))
    lines = Path("own.jsonl.journal").read_text().splitlines()
    said = {
        line["end"]: line["message"]["content"] for line in map(json.loads, lines) if "end" in line
    }
    assert said[0] != said[1]
    assert len(said) == 8
    with pytest.raises(DataError):
        distill(order(samples=2, drawing=drawing, out=Path("two.jsonl")))
    lines = Path("two.jsonl.journal").read_text().splitlines()
    assert said == {
        one["end"]: one["message"]["content"] for one in map(json.loads, lines) if "end" in one
    }
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    asked = {"messages": [{"role": "user", "content": "a"}], "tools": [tool]}
    Path("tools.jsonl").write_text(json.dumps(asked))
    with pytest.raises(ConfigError, match="prompts with tools"):
        distill(Order(Path("tools.jsonl"), folder, Path("t.jsonl")))
    with pytest.raises(ConfigError, match="same answer"):
        order(samples=2)


def test_the_documents_pattern_of_asking(
    teacher: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The distillation pattern of the documents: its lines up to the trajectories, and on where `hone.art` is here."""
    from dotenv import load_dotenv
    from openai import AsyncOpenAI

    monkeypatch.delenv("TEACHER_KEY", raising=False)
    Path(".env").write_text(f"TEACHER_KEY={KEY}\n")
    load_dotenv(".env")

    async def main() -> list[list[dict[str, Any]]]:
        teacher_client = AsyncOpenAI(api_key=os.environ["TEACHER_KEY"], base_url=teacher.url)
        prompts = ["the red cat", "the dog"]
        told: list[list[dict[str, Any]]] = []
        for prompt in prompts:
            completion = await teacher_client.chat.completions.create(
                model="big",
                messages=[{"role": "user", "content": prompt}],
            )
            told.append(
                [
                    {"role": "user", "content": prompt},
                    {"role": "assistant", "content": completion.choices[0].message.content},
                ]
            )
        return told

    try:
        told = asyncio.run(main())
    finally:
        os.environ.pop("TEACHER_KEY", None)
    assert [one[1]["content"] for one in told] == ["re: the red cat", "re: the dog"]
    assert {call.key for call in teacher.calls} == {KEY}
    if importlib.util.find_spec("hone.art") is None:
        return
    from hone import art  # pyright: ignore[reportAttributeAccessIssue]

    made = [art.Trajectory(messages_and_choices=messages) for messages in told]
    assert len(made) == 2
