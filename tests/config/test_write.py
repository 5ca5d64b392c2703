"""A written configuration reads back to the same values, for our reader and for a YAML 1.1 reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hone.config.files import read_yaml
from hone.config.layers import resolve
from hone.config.sections import Config
from hone.config.values import Node, fit
from hone.config.write import to_yaml

TRAPS = [
    "null",
    "~",
    "001",
    "2024-01-01",
    "1e-4",
    "yes",
    "No",
    "on",
    "y",
    "!t",
    "'",
    '"',
    "\\",
    "<<",
    "=",
    "&a",
    "*a",
    "\ufeff",
    "😀",
    "{}",
    "[]",
    "-",
    "?",
    "|",
    ">",
    "%",
    "@",
    "`",
]
words = some.text(max_size=8) | some.sampled_from(
    [*TRAPS, "", " ", "- a", "a: b", "# x", "a #b", "\n", "\u2028", "\x85", "\x00", "\x7f"]
)
plain_values = some.recursive(
    some.none() | some.booleans() | some.integers() | words
    | some.floats(allow_nan=False, allow_infinity=False),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def read_back(text: str) -> Config:
    node = read_yaml(text, "test")
    assert node is not None
    assert node.entries is not None
    tree: Any = fit_sections(node, Config)
    return Config.model_validate(tree)


def fit_sections(node: Node, section: Any) -> dict[str, object]:
    assert node.entries is not None
    return {
        key: fit_sections(child, section.model_fields[key].annotation)
        if hasattr(section.model_fields[key].annotation, "model_fields")
        else fit(child, section.model_fields[key].annotation)
        for key, child in node.entries.items()
    }


@given(path=words, columns=some.dictionaries(words, words, max_size=3), kwargs=some.dictionaries(words, plain_values, max_size=3), rate=some.floats(1e-12, 1e6), template=some.none() | words, modules=words | some.lists(words, max_size=3))  # fmt: skip
def test_reads_back_the_same(
    path: str,
    columns: dict[str, str],
    kwargs: dict[str, Any],
    rate: float,
    template: str | None,
    modules: str | list[str],
) -> None:
    data = {"path": path, "columns": columns, "template": template, "template_kwargs": kwargs}
    tree = {"data": data, "train": {"learning_rate": rate}}
    tree["tuning"] = {"lora": {"target_modules": modules}}
    config = Config.model_validate(tree)
    assert read_back(to_yaml(config)) == config


def test_origins_are_comments(tmp_path: Path) -> None:
    overrides = [
        "data.path=rows # 1.jsonl",
        "data.columns.user=question",
        "train.learning_rate=1e-5",
    ]
    resolved = resolve(overrides=overrides)
    text = to_yaml(resolved.config, origins=resolved.origins)
    lines = {line.partition(":")[0].strip(): line for line in text.splitlines()}
    assert lines["path"].endswith("# command line")
    assert lines["columns"].endswith("# default, user: command line")
    assert lines["epochs"].endswith("# default")
    assert "1.0e-05" in lines["learning_rate"], "a YAML 1.1 reader takes 1e-05 for text"
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert resolve(file=file).config == resolved.config


def test_yaml_1_1_readers_agree() -> None:
    yaml = pytest.importorskip("yaml")
    overrides = [
        "data.path=2024-01-01",
        "data.template=no",
        "model.name=0o17",
        "train.learning_rate=1e-5",
    ]
    config = resolve(overrides=overrides).config
    assert Config.model_validate(yaml.safe_load(to_yaml(config))) == config
