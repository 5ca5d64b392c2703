"""`quickstart`: a base model, a toy task, training, and the score before and after. It prints nothing.

folder/data/train.jsonl, val.jsonl, test.jsonl     rows that can be opened
folder/run/                                        the run, as `hone train` leaves it
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hone.config.layers import Resolved, resolve
from hone.errors import ConfigError, DiskError
from hone.infer.open import open_model
from hone.recipes.base_model import Base, BaseSettings, Progress, base_model
from hone.recipes.cache import cache_folder
from hone.recipes.preview import Preview, preview
from hone.recipes.score import Score, score
from hone.recipes.toy import Rows, file_text, toy_rows
from hone.recipes.train import Trained, train
from hone.runs.events import Listener
from hone.runs.folder import RunFolder

_LONGEST_REPLY = 32  # tokens; a right line has 21
_SIDE_BY_SIDE = 5

_Stage = TypeVar("_Stage")


@dataclass(frozen=True)
class QuickstartSettings:
    """Sizes of the task and of its training. The rates were chosen over several seeds, not for one."""

    train_rows: int = 4000
    validation_rows: int = 60
    test_rows: int = 100
    batch_size: int = 16
    learning_rate: float = 8e-3  # a model of one million weights takes large steps
    evaluations: int = 4


class Quickstart:
    """The stages, in order: `build`, `write`, `look`, `judge_base`, `train`, `judge_tuned`, then `result`.

    The same folder and seed again go on where they were: nothing that is finished is done twice.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        settings: QuickstartSettings | None = None,
        base_settings: BaseSettings | None = None,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self.settings = settings or QuickstartSettings()
        self.run = folder / "run"
        self._base_settings = base_settings
        self._began = time.perf_counter()
        self._cpu_began = time.process_time()
        self._base: Base | None = None
        self._before: Score | None = None
        self._after: Score | None = None
        self._trained: Trained | None = None
        self.rows: Rows = toy_rows(
            train=self.settings.train_rows,
            validation=self.settings.validation_rows,
            test=self.settings.test_rows,
            seed=seed,
        )

    def build(self, *, progress: Progress | None = None) -> Base:
        """The base model: from the cache, or built now."""
        self._base = base_model(cache_folder(), settings=self._base_settings, progress=progress)
        return self._base

    def write(self, *, fresh: bool = False) -> dict[str, Path]:
        """Write the rows; returns the files by their names.

        Raises ConfigError where other rows lie in the folder of a run that was begun, unless `fresh`, and
        DiskError.
        """
        parts = {"train": self.rows.train, "val": self.rows.validation, "test": self.rows.test}
        files = {name: self.folder / "data" / f"{name}.jsonl" for name in parts}
        texts = {name: file_text(rows) for name, rows in parts.items()}
        begun = self.run.is_dir() and RunFolder(self.run).is_run
        if begun and not fresh:
            self._refuse_other(files, texts)
        try:
            (self.folder / "data").mkdir(parents=True, exist_ok=True)
            for name, path in files.items():
                path.write_text(texts[name], encoding="utf-8")
        except OSError as error:
            raise DiskError(
                f"cannot write the rows: {error.strerror or error}",
                where=str(self.folder),
                remedy="choose another --folder, or free some space",
            ) from error
        return files

    def look(self) -> Preview:
        """The first three rows as training will receive them."""
        return preview(self.resolved().config, rows=3)

    def judge_base(self) -> Score:
        """How many held-out rows the base model gets right."""
        self._before = self._judge(_need(self._base).folder)
        return self._before

    def train(
        self,
        *,
        fresh: bool = False,
        command: Sequence[str] = (),
        listeners: Sequence[Listener] = (),
    ) -> Trained:
        """Train by the road of `hone train`. Raises what that raises."""
        self._trained = train(self.resolved(), fresh=fresh, command=command, listeners=listeners)
        return self._trained

    def judge_tuned(self) -> Score:
        """How many held-out rows the tuned model gets right."""
        self._after = self._judge(self.run)
        return self._after

    def side_by_side(self) -> list[dict[str, Any]]:
        """Held-out notes with what was expected, and what came before and after."""
        before, after = _need(self._before), _need(self._after)
        pairs = zip(before.rows[:_SIDE_BY_SIDE], after.rows, strict=False)
        return [
            {"note": old.asked, "expected": old.expected, "before": old.got, "after": new.got}
            for old, new in pairs
        ]

    def result(self) -> dict[str, Any]:
        """What the quickstart came to, for a program."""
        base, trained = _need(self._base), _need(self._trained)
        return {
            "exact_match_before": _need(self._before).exact_match,
            "exact_match_after": _need(self._after).exact_match,
            "seconds": round(time.perf_counter() - self._began, 2),
            "cpu_seconds": round(time.process_time() - self._cpu_began, 2),
            "seed": self.seed,
            "steps": trained.steps,
            "loss": trained.loss,
            "rows": {"train": len(self.rows.train), "test": len(self.rows.test)},
            "base": {"folder": str(base.folder), "built": base.built, "seconds": base.seconds},
            "folder": str(self.folder),
            "run": str(self.run),
            "replies": self.side_by_side(),
        }

    def resolved(self) -> Resolved:
        """The configuration of the run; no environment variable changes it."""
        chosen = self.settings
        steps = -(-chosen.train_rows // chosen.batch_size)
        every = -(-steps // chosen.evaluations)
        data = self.folder / "data"
        return resolve(
            overrides=[
                f"model.name={_need(self._base).folder}",
                f"data.path={data / 'train.jsonl'}",
                f"data.validation_path={data / 'val.jsonl'}",
                f"output.dir={self.run}",
                f"train.seed={self.seed}",
                "train.epochs=1",
                f"train.batch_size={chosen.batch_size}",
                f"train.learning_rate={chosen.learning_rate}",
                f"train.save_steps={every}",
                "train.precision=fp32",
            ]
        )

    def _judge(self, model: Path) -> Score:
        rows = [row.as_messages()["messages"] for row in self.rows.test]
        return score(open_model(str(model)).completer, rows, max_tokens=_LONGEST_REPLY)

    def _refuse_other(self, files: dict[str, Path], texts: dict[str, str]) -> None:
        kept = (RunFolder(self.run).read_identity() or {}).get("config")
        now = self.resolved().config.model_dump(mode="json")
        same = all(
            path.is_file() and path.read_text(encoding="utf-8", errors="replace") == texts[name]
            for name, path in files.items()
        )
        if not same or (kept is not None and kept != now):
            raise ConfigError(
                "this folder holds a quickstart with other rows or settings (another seed, another version "
                "of Hone, or changed by hand)",
                where=str(self.folder),
                remedy="add --fresh to start over (the old run is kept beside), or choose another --folder",
            )


def _need(stage: _Stage | None) -> _Stage:
    if stage is None:
        raise RuntimeError("the stages of the quickstart run in their order")
    return stage
