"""One worker of a Ray cluster: it starts the rank that Ray gave it, watches it, and tells the driver of it.

Ray places workers and ends them; the rank itself is the same process as without Ray, with the same watchdog. What
workers and driver say to each other is JSON in the `Mailbox`, an actor of the driver's machine.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from hone.backends.gang import Gang
from hone.backends.gpus import visible_gpus
from hone.backends.job import Job, Place
from hone.backends.post import Message, fault_message
from hone.backends.report import result_of
from hone.errors import EnvironmentFault, HoneError
from hone.runs.events import Event
from hone.runs.folder import RunFolder

_LOOK_SECONDS: Final = 0.5


class Mailbox:
    """What driver and workers have to say to each other."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._asked: list[int] = []
        self._endpoint: str | None = None

    def put(self, message: Message) -> None:
        """For the driver."""
        self._messages.append(message)

    def take(self) -> list[Message]:
        """What came since the last time."""
        found, self._messages = self._messages, []
        return found

    def ask(self, number: int) -> None:
        """The signal that the driver got, for all workers."""
        self._asked.append(number)

    def asked(self) -> list[int]:
        """All of them."""
        return self._asked

    def meet_at(self, endpoint: str) -> None:
        """Where the first rank listens."""
        self._endpoint = endpoint

    def meeting(self) -> str | None:
        """That, once it is known."""
        return self._endpoint


def work(config: dict[str, Any]) -> None:
    """What Ray Train calls on each worker; `config` holds the job as JSON, the mailbox, and where the driver stands."""
    rank = _context().get_world_rank()
    mailbox = config["mailbox"]
    try:
        done = _Worker(Job.decode_job(config["job"]), mailbox, config).run()
        _say(mailbox, {"rank": rank, "done": done})
    except Exception as error:  # noqa: BLE001 - the driver says it, whatever it is
        _say(mailbox, {"rank": rank, "fault": fault_message(error)})


class _Worker:
    """One rank of the cluster."""

    def __init__(self, job: Job, mailbox: Any, config: dict[str, Any]) -> None:
        self._job = job
        self._mailbox = mailbox
        self._config = config
        self._folder = RunFolder(Path(config["folder"]))

    def run(self) -> Message:
        """Start it, and return what it came to when it has ended."""
        try:
            os.chdir(self._config["cwd"])
        except OSError as error:
            raise EnvironmentFault(
                f"the driver's working folder is not to be seen from {socket.gethostname()}",
                where=self._config["cwd"],
                remedy="start from a folder that all machines of the cluster share",
            ) from error
        place = self._place()
        gang = Gang(self._job, [place], self._hear)
        self._gang = gang
        ended = threading.Event()
        threading.Thread(target=self._pass_on, args=(gang, ended), daemon=True).start()
        try:
            gang.run()
        finally:
            ended.set()
        if place.rank > 0:
            gang.write_logs(self._folder.log_file)
        return result_of(gang)

    def _place(self) -> Place:
        context = _context()
        rank, local_rank = context.get_world_rank(), context.get_local_rank()
        gpus = visible_gpus()
        return Place(
            rank=rank,
            world=context.get_world_size(),
            local_rank=local_rank,
            local_world=context.get_local_world_size(),
            store=self._meeting(rank),
            on_gpu=self._config["on_gpu"] and gpus > 0,
            gpu=local_rank if gpus > local_rank else 0,
        )

    def _meeting(self, rank: int) -> str:
        ray = importlib.import_module("ray")
        if rank == 0:
            host = ray.util.get_node_ip_address()
            with socket.socket() as found:
                found.bind((host, 0))
                port = found.getsockname()[1]
            ray.get(self._mailbox.meet_at.remote(f"tcp://{host}:{port}"))
        while True:
            endpoint: str | None = ray.get(self._mailbox.meeting.remote())
            if endpoint is not None:
                return endpoint
            time.sleep(_LOOK_SECONDS)

    def _hear(self, event: Event) -> None:
        if event.name == "started":
            self._gang.write_logs(self._folder.log_file)
        _say(
            self._mailbox,
            {"event": event.name, "time": event.time, "fields": dict(event.fields)},
        )

    def _pass_on(self, gang: Gang, ended: threading.Event) -> None:
        """Ask the rank what the driver was asked."""
        ray = importlib.import_module("ray")
        passed = 0
        while not ended.wait(_LOOK_SECONDS):
            asked: list[int] = ray.get(self._mailbox.asked.remote())
            for number in asked[passed:]:
                gang.ask(signal.Signals(number))
            passed = len(asked)


def _context() -> Any:
    return importlib.import_module("ray.train").get_context()


def _say(mailbox: Any, message: Message) -> None:
    """In its order, and there when this returns."""
    importlib.import_module("ray").get(mailbox.put.remote(message))


def chosen(faults: list[tuple[int, HoneError]]) -> HoneError:
    """The cause among what several ranks told: not what they suffered from each other's end."""
    return min(faults, key=lambda fault: ("lost another rank" in fault[1].what, fault[0]))[1]
