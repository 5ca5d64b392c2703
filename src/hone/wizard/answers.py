"""What has been answered so far, and where: the folder, the environment, the last project. It knows no question."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hone.config.files import read_config
from hone.config.values import Node
from hone.wizard.question import Taken, Value


@dataclass(frozen=True)
class Place:
    """Where the wizard was called."""

    folder: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    last_project: str | None = None


@dataclass
class Answers:
    """Checked answers by their question's key, and how many rows each of them names."""

    place: Place = field(default_factory=Place)
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    counts: dict[str, int] = field(default_factory=dict[str, int])

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def keep(self, key: str, taken: Taken) -> None:
        """Keep an answer."""
        self.values[key] = taken.value
        self.counts.pop(key, None)
        if taken.rows is not None:
            self.counts[key] = taken.rows

    def drop(self, key: str) -> None:
        """Forget an answer; absence is fine."""
        self.values.pop(key, None)
        self.counts.pop(key, None)

    def text(self, key: str) -> str:
        """A text; empty where it was not answered."""
        return str(self.values.get(key, ""))

    def number(self, key: str) -> float:
        """A number that was answered."""
        return cast("float", self.values[key])

    @property
    def scenario(self) -> str:
        """`jsonl`, `inline` or `distillation`; empty before that is answered."""
        return self.text("scenario")

    @property
    def rows(self) -> int | None:
        """Rows that will be trained on; None before they are named."""
        named = {"jsonl": "data", "inline": "examples", "distillation": "prompts"}
        return self.counts.get(named.get(self.scenario, ""))

    def path(self, typed: str) -> Path:
        """A path as it was typed, from the folder where the wizard was called."""
        return self.place.folder / Path(typed).expanduser()


def read_answers(path: Path) -> dict[str, Any]:
    """The answers in a YAML or JSON file, as they were typed: texts, and lists and mappings of texts.

    Raises ConfigError with file and line, DiskError.
    """
    told = _plain(read_config(path))
    return cast("dict[str, Any]", told)


def _plain(node: Node) -> Any:
    if node.entries is not None:
        return {key: _plain(value) for key, value in node.entries.items()}
    if node.items is not None:
        return [_plain(value) for value in node.items]
    if node.plain is not None:
        return node.plain
    if isinstance(node.scalar, bool):
        return str(node.scalar).lower()
    return "" if node.scalar is None else str(node.scalar)
