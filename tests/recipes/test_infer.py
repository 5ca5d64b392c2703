"""`infer`: a file of prompts to JSONL and to lines, many at a time, and nothing of the user's replaced unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ConfigError, DataError, ModelError
from hone.infer.completer import Sampling
from hone.infer.open import open_model
from hone.recipes.infer import Answered, Order, find_input, infer
from hone.recipes.reply_file import from_text
from tests.folders import model_folder

SHORT = Sampling(max_tokens=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answered(model: Path, text: str, name: str = "prompts.txt", **more: Any) -> Answered:
    Path(name).write_text(text)
    return infer(Order(str(model), Path(name), **{"sampling": SHORT, **more}))


def test_every_prompt_gets_its_own_reply(model: Path) -> None:
    prompts = [f"the {word} cat" for word in ("red", "green", "blue", "one", "two")]
    done = answered(model, "\n".join(prompts) + "\n")
    rows = [json.loads(line) for line in Path("preds.jsonl").read_text().splitlines()]
    completer = open_model(str(model)).completer
    wanted = [
        completer.reply([{"role": "user", "content": text}], sampling=SHORT).text
        for text in prompts
    ]
    assert [row["prompt"] for row in rows] == prompts
    assert [row["reply"] for row in rows] == wanted
    assert from_text(Path("preds.txt").read_text()) == wanted
    assert len(Path("preds.txt").read_text().splitlines()) == 5
    assert (done.answers, done.jsonl, done.text) == (5, Path("preds.jsonl"), Path("preds.txt"))


def test_a_system_message_and_rows(model: Path) -> None:
    rows = [
        {"messages": [{"role": "system", "content": "a bird"}, {"role": "user", "content": "the cat"}]},
        {"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "runs"}]},
    ]  # fmt: skip
    answered(model, "\n".join(map(json.dumps, rows)), "rows.jsonl", system="a bird")
    first, second = [json.loads(line) for line in Path("preds.jsonl").read_text().splitlines()]
    assert first["reply"] == second["reply"]
    assert second["wanted"] == "runs"
    assert [one["role"] for one in second["messages"]] == ["system", "user"]


def test_nothing_is_replaced_unasked(model: Path) -> None:
    Path("preds.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        answered(model, "the cat")
    assert Path("preds.txt").read_text() == "mine"
    assert not Path("preds.jsonl").exists()
    answered(model, "the cat", force=True)
    assert Path("preds.txt").read_text() != "mine"


def test_the_prompts_themselves_are_never_replaced(model: Path) -> None:
    with pytest.raises(ConfigError, match="the input itself"):
        answered(model, "the cat", "preds.txt", force=True)
    assert Path("preds.txt").read_text() == "the cat"


@pytest.mark.parametrize("ending", ["", ".txt", ".jsonl"])
def test_an_output_is_named_with_or_without_its_ending(model: Path, ending: str) -> None:
    order = Order("m", Path("in.txt"), Path(f"out/v1.2{ending}"))
    assert (order.jsonl, order.text) == (Path("out/v1.2.jsonl"), Path("out/v1.2.txt"))


def test_test_inputs_come_first() -> None:
    with pytest.raises(ConfigError, match=r"no test_inputs\.txt"):
        find_input(None)
    Path("demo_inputs.txt").write_text("a")
    assert find_input(None) == Path("demo_inputs.txt")
    Path("test_inputs.txt").write_text("a")
    assert find_input(None) == Path("test_inputs.txt")
    assert find_input(Path("own.txt")) == Path("own.txt")


def test_what_cannot_be_asked_is_said(model: Path) -> None:
    with pytest.raises(DataError, match="nothing is asked"):
        answered(model, "\n\n")
    with pytest.raises(DataError, match="cannot be read"):
        infer(Order(str(model), Path("none.txt")))
    with pytest.raises(ModelError):
        answered(Path("nowhere/at/all"), "the cat")
    with pytest.raises(ConfigError, match="the model takes 256"):
        answered(model, "the cat " * 400)
    assert not Path("preds.txt").exists()
