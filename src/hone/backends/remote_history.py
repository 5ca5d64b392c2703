"""What a service tells of a call, kept on this machine: a row for each gradient step and one for the call, each once."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, Final

from hone.trainable.folder import ModelFolder
from hone.trainable.history import Row, append, read, stamped

_NAMES: Final = {
    "train_loss": "loss/train",
    "learning_rate": "loss/learning_rate",
    "grad_norm": "loss/grad_norm",
    "tokens": "data/step_trainer_tokens",
}
_SUMMED: Final = frozenset({"data/step_trainer_tokens"})


class RemoteHistory:
    """The rows of one job in a model's history. `step` is the training step that the job makes.

    A job that is followed again, by a script that was started again, tells all from its first step: what stands in the
    history already is not written twice.
    """

    def __init__(self, folder: ModelFolder, job: str, step: int, *, is_kept: bool) -> None:
        self._folder = folder
        self._job = job
        self._step = step
        self._is_kept = is_kept
        self._rows: list[Row] = []
        before = [row for row in read(folder.history) if row.get("job") == job]
        self._known = {row.get("sft/gradient_step") for row in before}
        """Gradient steps that have a row; None where the call has one."""

    def hear(self, data: Mapping[str, Any], gradient_step: int) -> None:
        """One gradient step, counted from 1 within the call."""
        told = {
            ours: float(data[name]) for name, ours in _NAMES.items() if data.get(name) is not None
        }
        self._rows.append(told)
        named: Row = {"gradient_step": gradient_step, **told}
        self._write({f"sft/{name}": value for name, value in named.items()}, gradient_step)

    def finish(self, *, seconds: float) -> None:
        """The call has trained: means of its losses, sums of its counts."""
        if not self._rows:
            return
        row: Row = {"data/step_num_gradient_steps": len(self._rows), "time/step_wall_s": seconds}
        for name in _NAMES.values():
            values = [one[name] for one in self._rows if name in one]
            if values:
                row[name] = sum(values) if name in _SUMMED else fmean(values)
        self._write(row, None)

    def _write(self, row: Row, key: int | None) -> None:
        if self._is_kept and key not in self._known:
            append(self._folder.history, [stamped({**row, "job": self._job}, self._step)])
