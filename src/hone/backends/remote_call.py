"""One call of `train_sft` on a service: rows sent, a job made once, its steps told, its failure raised in our words."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Final, cast

from hone.backends.job_api import Answer, JobApi, persist
from hone.backends.job_follow import ENDED, JobFollower
from hone.backends.remote_history import RemoteHistory
from hone.backends.row_upload import send_rows
from hone.errors import (
    ConfigError,
    DataError,
    DiskError,
    HoneError,
    ModelError,
    NonFiniteError,
    OutOfMemory,
    RankLost,
    RemoteError,
)
from hone.trainable.folder import ModelFolder
from hone.trainable.progress import Progress
from hone.trainable.settings import TrainSFTConfig, resolve_sft_batch_size
from hone.trainable.trajectory import Trajectory, row_of

logger = logging.getLogger("hone")

_KEPT_SECONDS: Final = 7 * 24 * 3600
"""How long a service keeps the rows of a call whose end nobody tidied up."""
_ATTEMPTS: Final = 50
_MAKER: Final = "hone_client"
_FAULTS: Final[Mapping[str, type[HoneError]]] = {
    "disk_error": DiskError,
    "invalid_config": ConfigError,
    "invalid_model": ModelError,
    "invalid_training_file": DataError,
    "loss_not_finite": NonFiniteError,
    "out_of_memory": OutOfMemory,
    "rank_lost": RankLost,
}
"""By the code of a job's error; what is not among them is a RemoteError."""


class RowsFile:
    """Trajectories as a file of rows that is gone afterwards. Raises DataError, DiskError as it is entered."""

    def __init__(self, trajectories: Iterable[Trajectory], config: TrainSFTConfig) -> None:
        self._trajectories = trajectories
        self._last_only = config.assistant_turns == "last"
        self.count = 0
        self.size = 0
        self.sha256 = ""
        self.file: IO[bytes] = cast("IO[bytes]", None)

    def __enter__(self) -> RowsFile:
        try:
            self.file = tempfile.TemporaryFile(prefix="hone-rows-")
            digest = hashlib.sha256()
            for one in self._trajectories:
                self.count += 1
                row = row_of(one, f"trajectory {self.count}", last_only=self._last_only)
                row = _last_alone(row) if self._last_only else row
                self.size += self.file.write(row)
                digest.update(row)
            self.file.flush()
            self.sha256 = digest.hexdigest()
        except OSError as error:
            raise DiskError(
                f"cannot write the rows before they are sent: {error.strerror or error}",
                where=tempfile.gettempdir(),
                remedy="free some space, or set TMPDIR to a folder that has some",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()


def _last_alone(row: bytes) -> bytes:
    """The row with weights that say what `assistant_turns='last'` does."""
    told: dict[str, Any] = json.loads(row)
    for message in told["messages"][:-1]:
        message.pop("weight", None)
        if message.get("role") == "assistant":
            message["weight"] = 0
    return json.dumps(told, ensure_ascii=False, allow_nan=False).encode() + b"\n"


@dataclass
class RemoteCall:
    """One call. `step` is the model's training step before it."""

    api: JobApi
    project: str
    name: str
    step: int
    rows: RowsFile
    config: TrainSFTConfig
    settings: Mapping[str, Any]
    """Of the adapter; empty where nothing was said."""
    verbose: bool
    told_once: set[str]
    patience_seconds: float
    stop: threading.Event
    folder: ModelFolder
    """Where the model's history is kept on this machine."""
    log_metrics: bool

    def run(self) -> tuple[int, float | None]:
        """Gradient steps, and the loss of the last one. Raises HoneError; the model is then as it was."""
        batch = resolve_sft_batch_size(self.config.batch_size)
        batches = math.ceil(self.rows.count / batch)
        rates = self.config.learning_rate
        if isinstance(rates, list) and len(rates) != batches:
            raise ConfigError(
                f"learning_rate has {len(rates)} entries, and there are {batches} batches",
                remedy="give one rate for all, or one for each batch",
            )
        progress = Progress(batches) if self.verbose else None
        try:
            job = self._job(batch)
            if progress is not None:
                progress.notice(f"job {job['id']} at {self.api.address.url}: {job.get('status')}")
            return self._follow(job, progress)
        finally:
            if progress is not None:
                progress.end()

    def _follow(self, job: Answer, progress: Progress | None) -> tuple[int, float | None]:
        steps: int = 0
        loss: float | None = None
        began = time.monotonic()
        history = RemoteHistory(
            self.folder, str(job["id"]), self.step + 1, is_kept=self.log_metrics
        )
        follower = JobFollower(
            self.api, job, lambda text: _say(text, progress), self.stop, self.patience_seconds
        )
        for event in follower.events():
            data: Mapping[str, Any] = event.get("data") or {}
            if event.get("type") == "metrics" and data.get("train_loss") is not None:
                steps, loss = steps + 1, float(data["train_loss"])
                history.hear(data, steps)
                if progress is not None:
                    told = {"loss": loss, "learning_rate": data.get("learning_rate") or 0.0}
                    progress.step(steps, told, 0)
            elif event.get("level") in ("warn", "error"):
                self._tell(str(event.get("message")), progress)
        self._tidy(str(job.get("training_file") or ""))
        if follower.job.get("status") != "succeeded":
            raise fault_of(follower.job)
        history.finish(seconds=time.monotonic() - began)
        return steps, loss

    def _job(self, batch: int) -> Answer:
        """The job of this call: the one that an earlier attempt left running, else a new one."""
        us = uuid.uuid4().hex
        file = ""
        for attempt in range(1, _ATTEMPTS + 1):
            call = self._digest(batch, attempt)
            file = file or self._send(call)
            body: Answer = {
                "model": f"{self.project}/{self.name}",
                "training_file": file,
                "metadata": {_MAKER: us},
                "x_hone": {"trainable": self._trainable(batch, call)},
            }
            job = self._create(body)
            metadata: Mapping[str, Any] = job.get("metadata") or {}
            is_ours = metadata.get(_MAKER) == us
            if is_ours or job.get("status") not in ENDED - {"succeeded"}:
                if not is_ours:
                    self._tidy(file)
                    _say(f"this call is job {job['id']} already; following it")
                return job
        raise RemoteError(
            f"this call has failed {_ATTEMPTS} times before",
            where=f"{self.project}/{self.name} step {self.step + 1}",
            remedy="`hone jobs list` shows the jobs; change the call, or look at the service",
        )

    def _trainable(self, batch: int, call: str) -> Answer:
        told: Answer = {
            "project": self.project,
            "name": self.name,
            "expected_step": self.step,
            "learning_rate": self.config.learning_rate,
            "batch_size": batch,
            "call": call,
        }
        return told | ({"settings": dict(self.settings)} if self.settings else {})

    def _digest(self, batch: int, attempt: int) -> str:
        """The same for the same rows, numbers and step: so a call that is made again finds its job."""
        rates = self.config.learning_rate
        listed = [rate.hex() for rate in map(float, rates if isinstance(rates, list) else [rates])]
        told = [self.project, self.name, self.step, self.rows.sha256, listed, batch, attempt]
        told += [dict(self.settings)] if self.settings else []
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    def _send(self, call: str) -> str:
        return send_rows(
            self.api,
            self.rows.file,
            f"trajectories-{call[:12]}.jsonl",
            size=self.rows.size,
            patience_seconds=self.patience_seconds,
            say=_say,
            stop=self.stop,
            expires_seconds=_KEPT_SECONDS,
        )

    def _tidy(self, file: str) -> None:
        """Let go of rows that nobody needs; they end by themselves where that fails."""
        if not file:
            return
        try:
            self.api.delete(f"/files/{file}")
        except HoneError as error:
            logger.debug("the rows stay at the service for a while: %s", error.what)

    def _create(self, body: Answer) -> Answer:
        """Safe to do twice: the service knows a call that it has seen."""
        return persist(
            lambda: self.api.post("/fine_tuning/jobs", body),
            patience_seconds=self.patience_seconds,
            say=_say,
            stop=self.stop,
        )

    def _tell(self, text: str, progress: Progress | None) -> None:
        """A notice of the model's, once."""
        if text not in self.told_once:
            self.told_once.add(text)
            _say(text, progress)


def _say(text: str, progress: Progress | None = None) -> None:
    if progress is not None:
        progress.notice(text)
    else:
        logger.warning("%s", text)


def fault_of(job: Answer) -> HoneError:
    """Why a job came to no good end, as what is raised for it here."""
    where = f"job {job.get('id')}"
    if job.get("status") == "cancelled":
        return RemoteError("the job was cancelled", where=where)
    said: Mapping[str, Any] = job.get("error") or {}
    message = str(said.get("message") or "the service gives no reason")
    kind = _FAULTS.get(str(said.get("code")), RemoteError)
    return kind(
        message, where=where, remedy=f"`hone jobs logs {job.get('id')}` shows what happened"
    )
