"""A job's folder made ready: its rows under names of their own, its order with every path that it needs.

It knows where things lie below the root, and what the operator calls the base models. It starts nothing.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hone.backends.job import Job as RunOrder
from hone.config.layers import resolve_values
from hone.errors import DiskError, EnvironmentFault
from hone.models.saved_adapter import CONFIG as ADAPTER_CONFIG
from hone.service.order import (
    BEGINNING,
    RUN,
    TRAINING_ROWS,
    VALIDATION_ROWS,
    CallOrder,
    Order,
)
from hone.service.records import Job, NewCheckpoint
from hone.service.store import Store
from hone.trainable.settings import resolve_sft_batch_size

_COMMAND: Final = ("resume", "the", "job")


@dataclass(frozen=True)
class Preparation:
    """What every job of a service has in common."""

    store: Store
    bases: Mapping[str, str]
    """The operator's name of each base model, and its folder or hub id."""
    compute: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings of `compute` for calls of trainable models."""

    @property
    def root(self) -> Path:
        """The folder of the service."""
        return self.store.root

    def folder(self, job: Job) -> Path:
        """The folder of a job."""
        return self.root.resolve() / "jobs" / job.id

    def shown(self, job: Job) -> dict[str, str]:
        """What messages say instead of folders of this machine."""
        base = self.bases.get(job.base, "")
        found = {f"{self.folder(job)}/": "", str(self.folder(job)): "the job's folder"}
        if Path(base).expanduser().is_dir():
            found[str(Path(base).expanduser().resolve())] = job.base
        return {**found, f"{self.root.resolve()}/": ""}

    def relative(self, checkpoint: NewCheckpoint) -> NewCheckpoint:
        """A checkpoint with its path below the root."""
        path = Path(checkpoint.path)
        return dataclasses.replace(checkpoint, path=str(path.relative_to(self.root.resolve())))

    def prepare(self, job: Job) -> None:
        """Make the job's folder, its rows and its order; what is there already is made again. Raises HoneError."""
        folder = self.folder(job)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take(job.training_file, folder / TRAINING_ROWS)
            if job.validation_file is not None:
                self._take(job.validation_file, folder / VALIDATION_ROWS)
            own: dict[str, Any] = job.body.get("x_hone") or {}
            trainable: dict[str, Any] | None = own.get("trainable")
            order = self._run(job, folder) if trainable is None else self._call(job, trainable)
            order.write(folder)
        except OSError as error:
            raise DiskError(
                f"the job's folder cannot be made: {error.strerror or error}",
                where=str(folder),
                remedy="free some space on the service's disk, then create the job again",
            ) from error

    def _take(self, file: str, target: Path) -> None:
        """Give a file a second name in the job's folder, so that it stays while the job needs it."""
        if target.exists():
            return
        source = self.root / "files" / file
        if not source.is_file():
            raise EnvironmentFault(f"the bytes of {file} are gone", remedy="upload the file again")
        beside = target.with_name(f".{target.name}")
        beside.unlink(missing_ok=True)
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)
        os.replace(beside, target)

    def _run(self, job: Job, folder: Path) -> Order:
        values: dict[str, Any] = {
            **job.config,
            "data.path": str(folder / TRAINING_ROWS),
            "output.dir": str(folder / RUN),
        }
        if job.validation_file is not None:
            values["data.validation_path"] = str(folder / VALIDATION_ROWS)
        begins_at, beginning = self._beginning(job, folder)
        values |= beginning
        resolved = resolve_values(values, dict.fromkeys(values, "the job"))
        run = RunOrder.of(resolved, command=list(_COMMAND), fresh=False, accept_changes=False)
        return Order(run=run, begins_at=begins_at)

    def _beginning(self, job: Job, folder: Path) -> tuple[str | None, dict[str, Any]]:
        """Which weights the job begins with: a checkpoint to be made an adapter of, and settings."""
        base = self._base(job.base)
        if job.model == job.base:
            return None, {"model.name": base}
        model = self.store.model(job.model, job.owner)
        if model is None:
            raise EnvironmentFault(
                f"the model {job.model!r} is gone", remedy="create the job with another model"
            )
        path = self.root.resolve() / model.path
        if model.kind == "checkpoint":
            return str(path), {"model.name": base, "model.adapter": str(folder / BEGINNING)}
        if (path / ADAPTER_CONFIG).is_file():
            return None, {"model.name": base, "model.adapter": str(path)}
        return None, {"model.name": str(path)}

    def _base(self, name: str) -> str:
        base = self.bases.get(name)
        if base is None:
            raise EnvironmentFault(
                f"this service no longer has the model {name!r}",
                remedy="create the job with a model that GET /v1/models lists",
            )
        folder = Path(base).expanduser()
        return str(folder.resolve()) if folder.is_dir() else base

    def _call(self, job: Job, told: Mapping[str, Any]) -> Order:
        batch = told.get("batch_size") or "auto"
        call = CallOrder(
            root=str(self.root.resolve() / "trainable" / job.owner),
            project=str(told["project"]),
            name=str(told["name"]),
            base_model=self._base(job.base),
            expected_step=told.get("expected_step"),
            learning_rate=told.get("learning_rate") or 5e-5,
            batch_size=resolve_sft_batch_size(batch),
            train_on=str(told.get("train_on") or "all"),
            settings=dict(told.get("settings") or {}),
            compute=dict(self.compute),
        )
        return Order(call=call)
