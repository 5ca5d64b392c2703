"""The base model: built once, whole or absent, the same for the same settings, and readable by others."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import DiskError
from hone.recipes.base_model import NAME, BaseSettings, base_model, build_base

SMALL = BaseSettings(
    hidden_size=32, intermediate_size=48, num_layers=2, vocab_size=400, tokenizer_texts=200, steps=30
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def losses(cache: Path) -> list[float]:
    heard: list[float] = []
    built = base_model(cache, settings=SMALL, progress=lambda _, __, loss: heard.append(loss))
    assert built.built
    return heard


def test_it_learns_from_its_texts(losses: list[float]) -> None:
    assert len(losses) == SMALL.steps
    assert losses[0] == pytest.approx(math.log(400), rel=0.1)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_it_is_built_once_for_its_settings(cache: Path, losses: list[float]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("built twice")

    again = base_model(cache, settings=SMALL, build=refuse)
    assert not again.built
    with pytest.raises(AssertionError, match="built twice"):
        base_model(cache, settings=replace(SMALL, steps=31), build=refuse)
    assert [path.name for path in again.folder.parent.iterdir()] == [again.folder.name]


def test_the_same_settings_give_the_same_weights(
    cache: Path, losses: list[float], tmp_path: Path
) -> None:
    build_base(tmp_path, SMALL)
    first = load_file(base_model(cache, settings=SMALL).folder / "model.safetensors")
    second = load_file(tmp_path / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_plain_transformers_reads_it(cache: Path, losses: list[float]) -> None:
    folder = base_model(cache, settings=SMALL).folder
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ours = load_template(TextTokenizer.load(folder))
    assert ours.origin == "model"
    assert (
        text
        == ours.render(messages)
        == ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n")
    )
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    assert model(input_ids=ids).logits.shape[-1] == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id == 2
    assert tokenizer.decode(ids[0], clean_up_tokenization_spaces=False) == text


def test_who_builds_at_the_same_time_leaves_one_whole_model(
    tmp_path: Path,
) -> None:
    other: list[Path] = []

    def build_while_another_does(folder: Path, settings: BaseSettings, **_: object) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "ours").write_text("")
        theirs = tmp_path / "base" / f"{NAME}-{settings.fingerprint}"
        theirs.mkdir()
        (theirs / "config.json").write_text("{}")
        other.append(theirs)

    found = base_model(tmp_path, settings=SMALL, build=build_while_another_does)
    assert found.folder == other[0]
    assert [path.name for path in found.folder.iterdir()] == ["config.json"]
    assert [path.name for path in (tmp_path / "base").iterdir()] == [found.folder.name]


def test_what_is_not_finished_leaves_nothing(
    tmp_path: Path,
) -> None:
    def fail(folder: Path, *_: object, **__: object) -> None:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        base_model(tmp_path, settings=SMALL, build=fail)
    assert list((tmp_path / "base").iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_a_later_one(tmp_path: Path) -> None:
    old, young = tmp_path / "base" / ".writing-old", tmp_path / "base" / ".writing-young"
    old.mkdir(parents=True)
    young.mkdir()
    os.utime(old, (0, 0))

    def write(folder: Path, *_: object, **__: object) -> None:
        (folder / "config.json").write_text("{}")

    found = base_model(tmp_path, settings=SMALL, build=write)
    assert {path.name for path in found.folder.parent.iterdir()} == {young.name, found.folder.name}


def test_a_cache_that_cannot_be_written_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("in the way")
    with pytest.raises(DiskError, match="HONE_CACHE"):
        base_model(tmp_path, settings=SMALL)
