"""The quickstart at a small size: its stages, its files, going on, starting over, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.errors import ConfigError, DiskError
from hone.recipes.base_model import BaseSettings
from hone.recipes.quickstart import Quickstart, QuickstartSettings
from hone.runs.events import Event
from hone.runs.folder import RunFolder

BASE = BaseSettings(
    hidden_size=32, intermediate_size=48, num_layers=1, num_heads=2, vocab_size=400,
    tokenizer_texts=200, steps=4,
)  # fmt: skip
SMALL = QuickstartSettings(train_rows=48, validation_rows=6, test_rows=7)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def make(folder: Path, *, seed: int = 0) -> Quickstart:
    return Quickstart(folder, seed=seed, settings=SMALL, base_settings=BASE)


def whole(show: Quickstart, *, fresh: bool = False, heard: list[Event] | None = None) -> Quickstart:
    show.build()
    show.write(fresh=fresh)
    show.judge_base()
    show.train(fresh=fresh, listeners=[] if heard is None else [heard.append])
    show.judge_tuned()
    return show


def test_it_goes_from_nothing_to_a_result(tmp_path: Path) -> None:
    show = whole(make(tmp_path / "q"))
    told = show.result()
    json.dumps(told)
    assert 0 <= told["exact_match_before"] <= 1
    assert 0 <= told["exact_match_after"] <= 1
    assert told["seconds"] > 0
    assert told["steps"] == 3
    assert [set(row) for row in told["replies"]] == [{"note", "expected", "before", "after"}] * 5
    data = tmp_path / "q" / "data"
    assert {path.name for path in data.iterdir()} == {"train.jsonl", "val.jsonl", "test.jsonl"}
    assert len((data / "train.jsonl").read_text().splitlines()) == 48
    assert (tmp_path / "q" / "run" / "adapter_model.safetensors").is_file()


def test_the_preview_shows_the_rows_that_are_trained(tmp_path: Path) -> None:
    show = make(tmp_path / "q")
    show.build()
    show.write()
    lines = list(show.look().json_lines())
    assert len(lines) == 3
    assert [line["trained_text"] for line in lines] == [
        [f"{row.line}<|im_end|>"] for row in show.rows.train[:3]
    ]


def test_the_same_again_trains_nothing_twice(tmp_path: Path) -> None:
    first = whole(make(tmp_path / "q")).result()
    before = (tmp_path / "q" / "run" / "adapter_model.safetensors").read_bytes()
    heard: list[Event] = []
    again = whole(make(tmp_path / "q"), heard=heard).result()
    assert not [event for event in heard if event.name == "step"]
    assert (tmp_path / "q" / "run" / "adapter_model.safetensors").read_bytes() == before
    for key in ("exact_match_before", "exact_match_after", "replies", "loss"):
        assert again[key] == first[key]


@pytest.mark.fault(33)
def test_another_seed_or_changed_rows_are_refused_and_fresh_starts_over(tmp_path: Path) -> None:
    folder = tmp_path / "q"
    whole(make(folder))
    other = make(folder, seed=1)
    other.build()
    kept = (folder / "data" / "train.jsonl").read_text()
    with pytest.raises(ConfigError, match="other rows or settings") as refused:
        other.write()
    assert "--fresh" in str(refused.value)
    assert (folder / "data" / "train.jsonl").read_text() == kept
    whole(other, fresh=True)
    identity = RunFolder(folder / "run").read_identity()
    assert identity is not None
    assert identity["config"]["train"]["seed"] == 1
    assert len([path for path in folder.iterdir() if path.name.startswith("run.before")]) == 1
    (folder / "data" / "val.jsonl").write_text("{}\n")
    same = make(folder, seed=1)
    same.build()
    with pytest.raises(ConfigError, match="changed by hand"):
        same.write()


def test_the_environment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_TRAIN_EPOCHS", "7")
    show = make(tmp_path / "q")
    show.build()
    assert show.resolved().config.train.epochs == 1


def test_stages_out_of_order_are_a_fault_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="in their order"):
        make(tmp_path / "q").judge_base()


def test_a_file_in_the_way_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("in the way")
    show = make(tmp_path / "q")
    show.build()
    with pytest.raises(DiskError, match="--folder"):
        show.write()
