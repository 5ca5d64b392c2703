"""ServerlessBackend: trainable models on a job service, `hone service` on this machine or another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar
from urllib.parse import quote

from hone.backends.job_api import Answer, JobApi, persist
from hone.backends.job_follow import PATIENCE_SECONDS
from hone.backends.remote_call import RemoteCall, RowsFile
from hone.backends.service_address import find_service
from hone.errors import ConfigError, DiskError, EnvironmentFault
from hone.trainable.backend import Endpoint, SFTResult
from hone.trainable.folder import DEFAULT_FOLDER, ModelFolder, repository_root
from hone.trainable.model import TrainableModel
from hone.trainable.settings import Internals, TrainSFTConfig
from hone.trainable.trajectory import Trajectory

logger = logging.getLogger("hone")
_T = TypeVar("_T")
_APART: Final = "serverless"


@dataclass
class _Known:
    """A registered model, as the service last told of it."""

    told: Answer
    folder: ModelFolder
    """What is kept of it on this machine: its history."""
    told_once: set[str] = field(default_factory=set[str])
    """Notices that the user has heard."""

    @property
    def step(self) -> int:
        """Its training step."""
        return int(self.told["step"])


class ServerlessBackend:
    """Trains and serves models on a service; `await backend.close()` at the end.

    `base_url` unset is HONE_BASE_URL, else this machine's `hone service`; `api_key` unset is HONE_API_KEY, where a key
    is best left. A call of `train_sft` is a job of the service: a lost connection is awaited for `patience_seconds`,
    and the same call made again, by a script that was killed for instance, finds its job and follows on. The history of
    a model is kept here too, in `.hone/serverless/<project>/models/<name>/`; `base_path` of the model says where else.
    """

    folder_name = DEFAULT_FOLDER

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Raises ConfigError for an address that is none, EnvironmentFault where there is no key."""
        self._address = find_service(base_url, api_key, os.environ)
        self._patience = patience_seconds
        self._models: dict[int, _Known] = {}
        self._stops: set[threading.Event] = set()
        self._api: JobApi | None = None
        self._turn = threading.Lock()
        self._is_closed = False

    async def register(self, model: TrainableModel) -> None:
        """Make the model known to the service: a new one begins at step 0, an old one goes on."""
        await _in_thread(lambda: self._register(model))

    async def train_sft(
        self,
        model: TrainableModel,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig,
        *,
        verbose: bool,
        log_metrics: bool,
    ) -> SFTResult:
        """As `TrainableModel.train_sft`. Cancelled, it has the service end the job, which keeps what it has."""
        stop = threading.Event()
        return await _in_thread(
            lambda: self._train(model, trajectories, config, verbose, log_metrics, stop), stop
        )

    async def get_step(self, model: TrainableModel) -> int:
        """The newest checkpoint's number, asked of the service."""
        return await _in_thread(lambda: self._refresh(model).step)

    def inference_name(self, model: TrainableModel, step: int | None) -> str:
        """`project/name@step`; the newest step that is known here where none is given."""
        known = self._of(model)
        if step is not None and not 0 <= step <= known.step:
            raise ConfigError(
                f"{model.name} has no checkpoint of step {step}",
                remedy=f"its newest is {known.step}",
            )
        return f"{model.project}/{model.name}@{known.step if step is None else step}"

    def endpoint(self, model: TrainableModel) -> Endpoint:
        """Where the service answers for its models."""
        self._of(model)
        return Endpoint(f"{self._address.url}/", self._address.key)

    async def delete_checkpoints(self, model: TrainableModel, keep: frozenset[int]) -> None:
        """Have the service let go of all checkpoints but these and the newest."""
        path = f"{_path(self._of(model).told)}/checkpoints"
        await _in_thread(
            lambda: self._patiently(lambda: self._open().delete(path, {"keep": sorted(keep)}))
        )

    async def close(self) -> None:
        """End what runs for this backend and close its connections."""
        await _in_thread(self.close_now)

    def close_now(self) -> None:
        """As `close`, without an event loop."""
        for stop in list(self._stops):
            stop.set()
        with self._turn:
            self._is_closed = True
            if self._api is not None:
                self._api.close()

    def __enter__(self) -> ServerlessBackend:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close_now()

    async def __aenter__(self) -> ServerlessBackend:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _register(self, model: TrainableModel) -> None:
        _refuse_settings(model)
        if self._address.is_open:
            logger.warning(
                "%s is another machine and no https: whoever listens on the way reads the key and the rows",
                self._address.url,
            )
        body: Answer = {
            "project": model.project,
            "name": model.name,
            "base_model": model.base_model,
        }
        told = self._patiently(lambda: self._open().post("/x_hone/models", body))
        folder = self._folder(model)
        self._models[id(model)] = _Known(told, folder)
        weakref.finalize(model, self._models.pop, id(model), None)
        model.settle(self, folder)

    def _folder(self, model: TrainableModel) -> ModelFolder:
        """Where its history is kept here: apart from models that lie here as a whole."""
        said = None if model.base_path is None else Path(model.base_path).expanduser()
        root = (said or repository_root() / self.folder_name) / _APART
        folder = ModelFolder(root, model.project, model.name)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(
                f"cannot make the folder of the model's history: {error.strerror or error}",
                where=str(folder.path),
                remedy="say another one: TrainableModel(base_path=...)",
            ) from error
        return folder

    def _train(
        self,
        model: TrainableModel,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig,
        verbose: bool,
        log_metrics: bool,
        stop: threading.Event,
    ) -> SFTResult:
        self._of(model)
        api = self._open()
        self._stops.add(stop)
        try:
            with RowsFile(trajectories, config) as rows:
                known = self._refresh(model)
                if not rows.count:
                    return SFTResult(known.step, 0, None, None)
                call = RemoteCall(
                    api=api,
                    project=model.project,
                    name=model.name,
                    step=known.step,
                    rows=rows,
                    config=config,
                    verbose=verbose,
                    settings=_settings(model),
                    told_once=known.told_once,
                    patience_seconds=self._patience,
                    stop=stop,
                    folder=known.folder,
                    log_metrics=log_metrics,
                )
                steps, loss = call.run()
            return SFTResult(self._refresh(model).step, steps, loss, None)
        finally:
            self._stops.discard(stop)

    def _refresh(self, model: TrainableModel) -> _Known:
        known = self._of(model)
        known.told = self._patiently(lambda: self._open().get(_path(known.told)))
        return known

    def _of(self, model: TrainableModel) -> _Known:
        known = self._models.get(id(model))
        if known is None:
            raise ConfigError(
                f"{model.project}/{model.name} is not registered with this backend",
                remedy="await model.register(backend) first",
            )
        return known

    def _patiently(self, work: Callable[[], Answer]) -> Answer:
        return persist(work, patience_seconds=self._patience, say=_warn)

    def _open(self) -> JobApi:
        with self._turn:
            if self._is_closed:
                raise EnvironmentFault(
                    "this backend is closed", remedy="make a new ServerlessBackend"
                )
            if self._api is None:
                self._api = JobApi(self._address)
            return self._api


def _refuse_settings(model: TrainableModel) -> None:
    """Raise ConfigError for what a service does not take from a client."""
    where = f"{model.project}/{model.name}"
    if model.internals != Internals.of(None):
        raise ConfigError(
            "_internal_config says how this machine loads and serves a model, and a service decides that itself",
            where=where,
            remedy="remove it, or take LocalBackend",
        )
    for setting in ("entity", "id", "run_id"):
        if getattr(model, setting) is not None:
            raise ConfigError(
                f"{setting} has no meaning here: at a service a model is known by its project, its name and the key",
                where=where,
                remedy="remove it",
            )


def _settings(model: TrainableModel) -> Answer:
    """What is said of the adapter, which begins with the model's first call."""
    return {} if model.lora_config is None else {"lora_config": asdict(model.lora_config)}


def _path(told: Answer) -> str:
    project, name = (quote(str(told[key]), safe="") for key in ("project", "name"))
    return f"/x_hone/models/{project}/{name}"


def _warn(text: str) -> None:
    logger.warning("%s", text)


async def _in_thread(work: Callable[[], _T], stop: threading.Event | None = None) -> _T:
    """The result of blocking work. Cancelled, `stop` is set, and the work's end awaited."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        with contextlib.suppress(Exception):
            await task
        raise
