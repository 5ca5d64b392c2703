"""`include:` in configuration files: what is laid over what, where a value was said, and circles."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.config.layers import resolve
from hone.errors import ConfigError, NoSuchConfig


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_the_including_file_wins_key_by_key_over_several_levels(tmp_path: Path) -> None:
    write(
        tmp_path,
        root="train: {epochs: 9, seed: 5}\ndata:\n  columns: {user: question}\n",
        base="include: root.yaml\ntrain:\n  epochs: 2\n  batch_size: 4\n",
        run="include: base.yaml\ntrain:\n  batch_size: 8\n",
    )
    resolved = resolve(file=tmp_path / "run.yaml")
    train = resolved.config.train
    assert (train.epochs, train.seed, train.batch_size) == (2.0, 5, 8)
    assert resolved.config.data.columns == {"user": "question"}
    assert resolved.origins["train.batch_size"] == f"{tmp_path / 'run.yaml'}:3"
    assert resolved.origins["train.epochs"] == f"{tmp_path / 'base.yaml'}:3"
    assert resolved.origins["train.seed"] == f"{tmp_path / 'root.yaml'}:1"


def test_of_several_files_the_later_wins(tmp_path: Path) -> None:
    write(tmp_path, a="train: {seed: 1, epochs: 1}", b="train: {seed: 2}")
    (tmp_path / "run.yaml").write_text("include: [a.yaml, b.yaml]\n")
    train = resolve(file=tmp_path / "run.yaml").config.train
    assert (train.seed, train.epochs) == (2, 1.0)


def test_a_file_is_looked_for_beside_and_then_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "base.yaml").write_text("train: {seed: 7}\n")
    (tmp_path / "configs" / "run.yaml").write_text("include: configs/base.yaml\n")
    monkeypatch.chdir(tmp_path)
    assert resolve(file=Path("configs/run.yaml")).config.train.seed == 7


def test_a_circle_is_refused_with_its_chain(tmp_path: Path) -> None:
    write(tmp_path, a="include: b.yaml\n", b="include: c.yaml\n", c="include: a.yaml\n")
    with pytest.raises(ConfigError) as caught:
        resolve(file=tmp_path / "a.yaml")
    chain = " -> ".join(str(tmp_path / f"{name}.yaml") for name in "abca")
    assert chain in caught.value.what
    assert caught.value.where == f"{tmp_path / 'c.yaml'} line 1"


def test_an_absent_file_names_where_it_was_looked_for(tmp_path: Path) -> None:
    write(tmp_path, run="include: gone.yaml\n")
    with pytest.raises(NoSuchConfig) as caught:
        resolve(file=tmp_path / "run.yaml")
    assert str(tmp_path / "gone.yaml") in str(caught.value.remedy)


def test_an_unknown_key_of_an_included_file_is_found_there(tmp_path: Path) -> None:
    write(tmp_path, base="train:\n  epoch: 3\n", run="include: base.yaml\n")
    with pytest.raises(ConfigError) as caught:
        resolve(file=tmp_path / "run.yaml")
    assert caught.value.where == f"{tmp_path / 'base.yaml'}:2"
