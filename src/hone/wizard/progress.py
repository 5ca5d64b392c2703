"""How far a script has come that runs elsewhere, read off the history that its model keeps. It starts nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from hone.wizard.answers import Answers

_ROOTS: Final = (".hone", ".art")
"""Folders of models, of Hone and of ART, at the root of a repository or in the working folder."""
_STEP: Final = "sft/gradient_step"
_LOSS: Final = "sft/loss/train"


@dataclass
class History:
    """The history of one trainable model, from now on: what it held before is not counted."""

    folder: Path
    project: str
    name: str
    _before: dict[Path, int] = field(default_factory=dict[Path, int])

    @classmethod
    def of(cls, answers: Answers) -> History:
        """Of the model that a script trains."""
        found = cls(answers.place.folder, answers.text("project"), answers.text("name"))
        found._before = {path: path.stat().st_size for path in found.files()}
        return found

    def files(self) -> list[Path]:
        """The histories of that name, here and above."""
        tail = Path(self.project, "models", self.name, "history.jsonl")
        places = (self.folder, *self.folder.parents)
        return [
            path for place in places for root in _ROOTS if (path := place / root / tail).is_file()
        ]

    def steps(self) -> tuple[int, float | None]:
        """Gradient steps since then, and the loss of the last one."""
        count, loss = 0, None
        for path in self.files():
            with path.open("rb") as file:
                file.seek(self._before.get(path, 0))
                for line in file:
                    row = _row(line)
                    if _STEP in row:
                        count += 1
                        told = row.get(_LOSS)
                        loss = float(told) if isinstance(told, int | float) else None
        return count, loss


def _row(line: bytes) -> dict[str, Any]:
    try:
        told: Any = json.loads(line)
    except ValueError:  # it is being written
        return {}
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}
