"""LocalBackend: trainable models on this machine. Training runs in a process of its own, which owns the device."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from hone.backends.local_call import CallListener
from hone.backends.local_process import TrainingProcess
from hone.backends.local_server import Server, StartServer, start_server
from hone.backends.local_settings import Opened, open_model
from hone.errors import ConfigError, DiskError, EnvironmentFault
from hone.trainable.backend import Endpoint, SFTResult
from hone.trainable.folder import DEFAULT_FOLDER, ModelFolder, repository_root
from hone.trainable.model import TrainableModel
from hone.trainable.settings import TrainSFTConfig, resolve_sft_batch_size
from hone.trainable.trajectory import Trajectory, check_tool_schema, row_of

logger = logging.getLogger("hone")

_API_KEY: Final = "not-needed"
_ROWS: Final = ".rows-"
_T = TypeVar("_T")


@dataclass
class _Live:
    """What runs for a backend: at most one training process, and one server for each model."""

    process: TrainingProcess | None = None
    trains: str = ""
    """Which model, and with which settings, the process has open."""
    servers: dict[Path, Server] | None = None

    def end_training(self) -> None:
        """End the training process; its device, its memory and its lock are free afterwards."""
        process, self.process, self.trains = self.process, None, ""
        if process is not None:
            process.close()

    def end(self) -> None:
        """End everything."""
        servers, self.servers = self.servers or {}, {}
        for server in servers.values():
            server.close()
        self.end_training()


class LocalBackend:
    """Trains and serves models on this machine; `with`, `async with`, or `await backend.close()` at the end.

    Models lie in `<path>/<project>/models/<name>/`; unset, `path` is `.hone` at the root of the repository that the
    working directory lies in. `compute` holds settings of Hone's section of that name, for instance
    `{"micro_batch_tokens": 4096}`: they change how a step is computed, never what. One model trains at a time.
    """

    folder_name = DEFAULT_FOLDER

    def __init__(
        self,
        *,
        in_process: bool = False,
        path: str | Path | None = None,
        gpu_cost_per_hour_usd: float | None = None,
        enable_expert_replay: bool = True,
        compute: Mapping[str, Any] | None = None,
        start: StartServer = start_server,
    ) -> None:
        """`gpu_cost_per_hour_usd` prices each call in the history; `start` is what serves a model. Raises ConfigError."""
        if in_process:
            raise ConfigError(
                "in_process=True: training runs in a process of its own, so that the device is free when it ends",
                remedy="remove in_process",
            )
        cost = gpu_cost_per_hour_usd
        if cost is not None and not (math.isfinite(cost) and cost >= 0):
            raise ConfigError(f"gpu_cost_per_hour_usd is a number from 0 on; found {cost!r}")
        if not enable_expert_replay:
            logger.warning(
                "enable_expert_replay: not applicable here: it is for reinforcement learning"
            )
        self._path = None if path is None else Path(path).expanduser()
        self._cost = cost
        self._compute = dict(compute or {})
        self._start = start
        self._turn = threading.RLock()
        self._live = _Live(servers={})
        self._opened: dict[int, Opened] = {}
        self._is_closed = False
        weakref.finalize(self, self._live.end)

    async def register(self, model: TrainableModel) -> None:
        """Make the model known: a new one is loaded and gets its checkpoint of step 0, an old one goes on."""
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
        """As `TrainableModel.train_sft`. Cancelled, it ends after the step that it is in, and keeps what it has."""
        return await _in_thread(
            lambda: self._train(model, trajectories, config, verbose, log_metrics),
            on_cancel=self._stop,
        )

    async def get_step(self, model: TrainableModel) -> int:
        """The newest checkpoint's number."""
        return self._step(model)

    def inference_name(self, model: TrainableModel, step: int | None) -> str:
        """`name@step`, of the newest step where none is given."""
        if step is None:
            return f"{model.name}@{self._step(model)}"
        steps = self._of(model).folder.steps()
        if step not in steps:
            raise ConfigError(
                f"{model.name} has no checkpoint of step {step}",
                remedy=f"there are: {', '.join(map(str, steps)) or 'none'}",
            )
        return f"{model.name}@{step}"

    def endpoint(self, model: TrainableModel) -> Endpoint:
        """Where the model answers. The server is started at the first call, and lives until `close`."""
        opened = self._of(model)
        with self._turn:
            self._refuse_closed()
            servers = self._live.servers if self._live.servers is not None else {}
            self._live.servers = servers
            server = servers.get(opened.folder.path)
            if server is None:
                server = self._start(
                    opened.folder.path,
                    name=model.name,
                    base_model=opened.base_name,
                    base_folder=Path(opened.config.model.name),
                    engine_args=model.internals.engine_args,
                )
                servers[opened.folder.path] = server
            return Endpoint(server.base_url, _API_KEY)

    async def delete_checkpoints(self, model: TrainableModel, keep: frozenset[int]) -> None:
        """Let go of all checkpoints but these and the newest."""
        folder = self._of(model).folder
        with self._turn:
            *older, _ = folder.steps() or [0]
            folder.remove_checkpoints(step for step in older if step not in keep)

    async def close(self) -> None:
        """End the training process and the servers; their memory, ports and locks are free when it returns."""
        await _in_thread(self.close_now)

    def close_now(self) -> None:
        """As `close`, without an event loop."""
        self._stop()
        with self._turn:
            self._is_closed = True
            self._live.end()

    def __enter__(self) -> LocalBackend:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close_now()

    async def __aenter__(self) -> LocalBackend:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def pids(self) -> list[int]:
        """The processes that live for this backend."""
        process = self._live.process
        own = [] if process is None or not process.is_alive else [process.pid]
        return [
            *own,
            *(pid for server in (self._live.servers or {}).values() for pid in server.pids),
        ]

    def _register(self, model: TrainableModel) -> None:
        with self._turn:
            self._refuse_closed()
            folder = ModelFolder(self._root(model), model.project, model.name)
            folder.make()
            _remove_left_rows(folder.path)
            opened = open_model(model, folder, self._compute)
            for message in opened.notices:
                logger.warning("%s", message)
            self._opened[id(model)] = opened
            if folder.latest() is None:
                self._process_for(opened)
            folder.write_model(opened.about)
            model.settle(self, folder)

    def _train(
        self,
        model: TrainableModel,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig,
        verbose: bool,
        log_metrics: bool,
    ) -> SFTResult:
        opened = self._of(model)
        with self._turn, _written_rows(opened.folder.path, trajectories, config, model) as written:
            self._refuse_closed()
            path, rows = written
            if not rows:
                return SFTResult(self._step(model), 0, None, None)
            batch = resolve_sft_batch_size(config.batch_size)
            order = {
                "do": "train",
                "rows": str(path),
                "batch_size": batch,
                "rates": _rates(config, math.ceil(rows / batch)),
                "train_on": config.assistant_turns,
            }
            listener = CallListener(
                opened.folder,
                verbose=verbose,
                log_metrics=log_metrics,
                dollars_an_hour=self._cost,
                told=opened.told,
            )
            began = time.monotonic()
            try:
                process = self._process_for(opened, listener.hear)
                done = process.ask(order, listener.hear)
            except BaseException:
                process = self._live.process
                if process is not None and not process.is_alive:
                    self._live.end_training()
                raise
            finally:
                listener.end()
            listener.finish(done, seconds=time.monotonic() - began)
            step, steps = int(done["step"]), int(done["steps"])
            written_to = opened.folder.checkpoint(step) if steps else None
            return SFTResult(step, steps, done["loss"], written_to)

    def _process_for(
        self, opened: Opened, hear: Callable[[Mapping[str, Any]], object] | None = None
    ) -> TrainingProcess:
        """The training process with this model open; one that has another open ends first."""
        live = self._live
        hello = {
            "do": "open",
            "path": str(opened.folder.path),
            "base_name": opened.base_name,
            "config": opened.config.model_dump(mode="json"),
        }
        wanted = json.dumps(hello, sort_keys=True)
        if live.process is not None and live.process.is_alive and live.trains == wanted:
            return live.process
        live.end_training()
        live.process = TrainingProcess(hello, opened.folder.logs / "training.log")
        live.trains = wanted
        try:
            live.process.ask(None, hear or (lambda _: None))
        except BaseException:
            live.end_training()
            raise
        return live.process

    def _stop(self) -> None:
        process = self._live.process
        if process is not None:
            process.stop()

    def _of(self, model: TrainableModel) -> Opened:
        opened = self._opened.get(id(model))
        if opened is None:
            raise ConfigError(
                f"{model.project}/{model.name} is not registered with this backend",
                remedy="await model.register(backend) first",
            )
        return opened

    def _step(self, model: TrainableModel) -> int:
        return self._of(model).folder.latest() or 0

    def _root(self, model: TrainableModel) -> Path:
        said = None if model.base_path is None else Path(model.base_path).expanduser()
        if said is not None and self._path is not None and said.resolve() != self._path.resolve():
            raise ConfigError(
                f"the model's base_path is {said}, and the backend's path {self._path}",
                remedy="say one of them",
            )
        return self._path or said or repository_root() / self.folder_name

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise EnvironmentFault("this backend is closed", remedy="make a new LocalBackend")


def _rates(config: TrainSFTConfig, batches: int) -> list[float]:
    """One rate, or one for each batch."""
    if not isinstance(config.learning_rate, list):
        return [config.learning_rate]
    if len(config.learning_rate) != batches:
        raise ConfigError(
            f"learning_rate has {len(config.learning_rate)} entries, and there are {batches} batches",
            remedy="give one rate for all, or one for each batch",
        )
    return config.learning_rate


@contextlib.contextmanager
def _written_rows(
    folder: Path, trajectories: Iterable[Trajectory], config: TrainSFTConfig, model: TrainableModel
) -> Any:
    """The trajectories as a file for the training process, and how many they are; gone afterwards."""
    path = folder / f"{_ROWS}{os.getpid()}-{time.monotonic_ns()}.jsonl"
    last_only = config.assistant_turns == "last"
    form = check_tool_schema(model.internals.tool_schema)
    count = 0
    try:
        try:
            with path.open("wb") as file:
                for count, one in enumerate(trajectories, start=1):
                    name = f"trajectory {count}"
                    file.write(row_of(one, name, last_only=last_only, tool_schema=form))
        except OSError as error:
            raise DiskError(
                f"cannot write the rows for the training process: {error.strerror or error}",
                where=str(path),
                remedy="free some space",
            ) from error
        yield path, count
    finally:
        path.unlink(missing_ok=True)


def _remove_left_rows(folder: Path) -> None:
    """Remove files of rows whose writer is gone."""
    for path in folder.glob(f"{_ROWS}*.jsonl"):
        pid = path.name.removeprefix(_ROWS).partition("-")[0]
        if not pid.isdigit() or not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)


async def _in_thread(work: Callable[[], _T], on_cancel: Callable[[], object] | None = None) -> _T:
    """The result of blocking work. Cancelled, `on_cancel` is told, and the work's end awaited."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        with contextlib.suppress(Exception):
            await task
        raise
