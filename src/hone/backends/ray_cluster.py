"""Ranks on a Ray cluster, by Ray Train: asked for, heard, stopped and ended together. It knows nothing of training.

Where no cluster is named (`RAY_ADDRESS`), one of this machine's own is started, on its loopback address, and ended
afterwards. Ray carries its own objects between its own processes as it always does, pickles among them: a cluster's
network must be a trusted one. What Hone keeps of a run is safetensors and JSON, as ever.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

from hone.backends.job import Job
from hone.backends.post import Message, error_of, event_of
from hone.backends.ray_worker import Mailbox, chosen, work
from hone.errors import EnvironmentFault, HoneError, Interrupted, RankLost, Terminated
from hone.runs.events import Event

_LOOK_SECONDS: Final = 0.3
_AGAIN: Final = "the same command resumes from the last checkpoint"
_QUIET: Final = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # rows and run folders are named as the user named them
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class RayCluster:
    """`run` asks for so many ranks and returns what the first one came to; it raises what ended the run."""

    def __init__(
        self, job: Job, ranks: int, *, folder: Path, on_gpu: bool, hear: Callable[[Event], object]
    ) -> None:
        self._job = job
        self._ranks = ranks
        self._folder = folder.absolute()
        self._on_gpu = on_gpu
        self._hear = hear
        self._asked: list[signal.Signals] = []
        self._faults: list[tuple[int, HoneError]] = []
        self._done: dict[int, Message] = {}

    def run(self) -> dict[str, Any]:
        """Start all, and return when all have ended."""
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        ray = _load("ray")
        try:
            return self._run(ray)
        except ray.exceptions.RayError as error:  # of Ray's own processes
            raise RankLost(
                f"Ray failed: {_first_line(error)}", remedy=f"see Ray's own logs; {_AGAIN}"
            ) from error

    def _run(self, ray: Any) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._signals())
            stack.enter_context(_connected(ray, self._ranks))
            stack.enter_context(
                self._signals()
            )  # once more: Ray takes SIGTERM for itself as it starts
            storage = stack.enter_context(_storage(self._folder))
            self._check_room(ray)
            mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
            trainer = self._trainer(mailbox, storage)
            fitting = _Fitting(trainer)
            fitting.start()
            told = 0
            while fitting.is_alive():
                fitting.join(_LOOK_SECONDS)
                self._take(ray.get(mailbox.take.remote()))
                for number in self._asked[told:]:
                    ray.get(mailbox.ask.remote(int(number)))
                told = len(self._asked)
            self._take(ray.get(mailbox.take.remote()))
        return self._result(fitting.error)

    def _trainer(self, mailbox: Any, storage: Path) -> Any:
        train = _load("ray.train")
        trainers = _load("ray.train.v2.api.data_parallel_trainer")
        return trainers.DataParallelTrainer(
            work,
            train_loop_config={
                "job": self._job.encode_job(),
                "mailbox": mailbox,
                "cwd": os.getcwd(),
                "folder": str(self._folder),
                "on_gpu": self._on_gpu,
            },
            scaling_config=train.ScalingConfig(num_workers=self._ranks, use_gpu=self._on_gpu),
            run_config=train.RunConfig(
                name="hone",
                storage_path=str(storage),
                failure_config=train.FailureConfig(max_failures=0),
            ),
        )

    def _check_room(self, ray: Any) -> None:
        kind = "GPU" if self._on_gpu else "CPU"
        room = int(ray.cluster_resources().get(kind, 0))
        if room < self._ranks:
            raise EnvironmentFault(
                f"the Ray cluster has {room} {kind}s, and {self._ranks} ranks want one each",
                remedy="lower compute.nproc, or add machines to the cluster first",
            )

    def _take(self, messages: list[Message]) -> None:
        for message in messages:
            if "event" in message:
                self._hear(event_of(message))
            elif "done" in message:
                self._done[message["rank"]] = message["done"]
            else:
                self._faults.append((message["rank"], _error(message)))

    def _result(self, error: BaseException | None) -> dict[str, Any]:
        if self._faults:
            raise chosen(self._faults)
        if 0 in self._done and error is None:
            return self._done[0]
        if self._asked:
            kind = Interrupted if self._asked[-1] == signal.SIGINT else Terminated
            raise kind("the run was asked to end", remedy=_AGAIN)
        raise RankLost(
            f"Ray ended the ranks: {_first_line(error)}", remedy=f"see Ray's own logs; {_AGAIN}"
        )

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        """The first Ctrl-C or SIGTERM is for the ranks; a second one ends the driver, and all with it."""

        def note(number: int, frame: object) -> None:
            del frame
            self._asked.append(signal.Signals(number))
            if len(self._asked) > 1:
                raise KeyboardInterrupt

        mine = threading.current_thread() is threading.main_thread()
        free = [n for n in (signal.SIGHUP, signal.SIGUSR1) if signal.getsignal(n) == signal.SIG_DFL]
        numbers = (signal.SIGINT, signal.SIGTERM, *free) if mine else ()
        before = {one: signal.signal(one, note) for one in numbers}
        try:
            yield
        except KeyboardInterrupt:
            kind = Interrupted if self._asked[-1] == signal.SIGINT else Terminated
            message = "work since the last checkpoint is not saved"
            raise kind(f"asked twice to end; {message}", remedy=_AGAIN) from None
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


class _Fitting(threading.Thread):
    """Ray Train's own call, which returns when all workers have."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(daemon=True)
        self._trainer = trainer
        self.error: BaseException | None = None

    def run(self) -> None:
        """Until the end, good or bad."""
        try:
            self._trainer.fit()
        except BaseException as error:  # noqa: BLE001 - told by the driver
            self.error = error


@contextlib.contextmanager
def _connected(ray: Any, ranks: int) -> Generator[None]:
    """To the cluster that RAY_ADDRESS names, or to one of our own for as long as this is open."""
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**quiet)
        else:
            here = max(os.cpu_count() or 1, ranks + 1)
            ray.init(
                address="local",
                num_cpus=here,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
    except Exception as error:
        # Of any kind: a node that is slow to start is an Exception and no more.
        raise EnvironmentFault(
            f"no Ray cluster: {_first_line(error)}",
            remedy="set RAY_ADDRESS to a running one, or unset it to start one here",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _storage(folder: Path) -> Generator[Path]:
    """Where Ray Train keeps its own notes, as long as the run lasts: beside the run's folder, which all machines see."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    notes = Path(tempfile.mkdtemp(prefix=".hone-ray-", dir=folder.parent))
    try:
        yield notes
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def _error(message: Message) -> HoneError:
    fault = message["fault"]
    if fault["kind"]:
        return error_of(fault)
    return HoneError(f"rank {message['rank']}: unexpected {fault['what']}")


def _first_line(error: BaseException | None) -> str:
    return next(iter(str(error or "no reason is known").strip().splitlines()), repr(error))


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as fault:
        raise EnvironmentFault(
            f"compute.launcher=ray needs the package ray, which does not load ({fault})",
            remedy="pip install 'hone[distributed]', or set compute.launcher=local",
        ) from fault
