"""Several sources of rows: each key has its type, and what is wrong with one is said of that one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.config.layers import resolve
from hone.config.write import to_yaml
from hone.errors import ConfigError


def complaint(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(overrides=overrides)
    return str(caught.value)


def test_a_source_takes_what_was_typed() -> None:
    said = "data.sources=[{path: 001, weight: 9e-1, columns: {user: 1}}, {path: b/c, weight: 1}]"
    first, second = resolve(overrides=[said]).config.data.sources
    assert (first.path, first.weight, first.columns) == ("001", 0.9, {"user": "1"})
    assert (second.path, second.weight, second.split) == ("b/c", 1.0, None)


def test_sources_are_written_and_read_back(tmp_path: Path) -> None:
    said = "data.sources=[{path: a.csv, weight: 3}, {path: o/n, weight: 1, split: test, name: No}]"
    config = resolve(overrides=[said]).config
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert resolve(file=path).config == config


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("[{path: a, weigth: 1}]", "unknown key 'weigth' in data.sources[0]"),
        ("[{path: a, weigth: 1}]", "did you mean 'weight'?"),
        ("[{path: a}, {path: b, weight: 0}]", "data.sources[1].weight: 0 cannot be used"),
        ("[{path: a, format: x}]", "data.sources[0].format: 'x' cannot be used"),
        ("[{weight: 1}]", "data.sources[0] has no path"),
        ("[{path: ''}]", "data.sources[0].path"),
        ("[a.jsonl]", "data.sources[0]: 'a.jsonl' cannot be used"),
        ("a.jsonl", "a list of mappings, each with some of path, weight"),
        ("[{path: a, weight: 1}, {path: b}]", "a weight each, or none at all"),
    ],
)
def test_what_is_wrong_is_said_of_the_source(said: str, words: str) -> None:
    assert words in complaint(f"data.sources={said}")


@pytest.mark.parametrize(
    "other", ["path=x", "split=x", "subset=x", "revision=x", "format=turns", "columns.user=x"]
)
def test_what_belongs_to_a_source_is_not_said_beside(other: str) -> None:
    told = complaint("data.sources=[{path: a}]", f"data.{other}")
    assert "exclude each other" in told
    assert "in an entry of sources" in told
