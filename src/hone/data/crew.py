"""The crew: several preparing processes that take jobs as they become free. It knows jobs and answers, not rows.

Jobs and answers are lines of JSON over pipes. A process that dies, or answers nothing and does nothing, is replaced,
and its job done again; if that job costs three, the run is told so.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from hone import errors
from hone.config.surroundings import child_environment
from hone.errors import EnvironmentFault, HoneError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_TRIES: Final = 3
_LOOK_SECONDS: Final = 20.0
_IDLE_LOOKS: Final = 3  # in a row, without an answer and without any work
_NICENESS: Final = 5

Understood = TypeVar("Understood")
Job = dict[str, Any]
Next = Callable[[], Job | None]
"""The next job; waits for one, and answers None when there will be no more."""
Hear = Callable[[Job, dict[str, Any] | HoneError], object]


class Crew:
    """`count` processes that ask `next_job` for work and tell `hear` what came of it, each from a thread of its own.

    `program` is the module that they run, and `order` the first that it is told.
    """

    def __init__(
        self,
        order: DataclassInstance,
        count: int,
        next_job: Next,
        hear: Hear,
        program: str = "hone.data.worker",
    ) -> None:
        self._program = program
        self._hello = orjson.dumps(asdict(order)) + b"\n"
        self._next_job = next_job
        self._hear = hear
        self._closing = False
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._threads = [
            threading.Thread(target=self._serve, name=f"hone-crew-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pids(self) -> list[int]:
        """The processes that live."""
        with self._lock:
            return [process.pid for process in self._processes]

    def close(self) -> None:
        """End every process, at once."""
        with self._lock:
            self._closing = True
            processes = list(self._processes)
        for process in processes:
            process.kill()
        for thread in self._threads:
            thread.join(timeout=10)

    def join(self) -> None:
        """Wait until every thread has run out of jobs."""
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        process: subprocess.Popen[bytes] | None = None
        try:
            while (job := self._next_job()) is not None:
                answer: dict[str, Any] | HoneError | None = None
                for _ in range(_TRIES):
                    process = process or self._start()
                    if process is None:
                        return
                    answer = _ask(process, job)
                    if answer is not None:
                        break
                    end = self._bury(process)
                    process = None
                    if self._closing:
                        return
                    answer = EnvironmentFault(
                        f"a preparing process died or stood still {_TRIES} times over the same rows ({end})",
                        remedy="is memory short? lower data.workers, or set it to 0 to prepare in this process",
                    )
                assert answer is not None
                self._hear(job, answer)
        finally:
            if process is not None:
                self._dismiss(process)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._closing:
                return None
            process = subprocess.Popen(  # noqa: S603 - a module of ours
                [sys.executable, "-m", self._program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the run, which ends them
            )
            self._processes.add(process)
        assert process.stdin is not None
        try:
            process.stdin.write(self._hello)
            process.stdin.flush()
        except OSError:  # it died at once: found when it is asked
            pass
        return process

    def _bury(self, process: subprocess.Popen[bytes]) -> str:
        hangs = not _has_ended(process)
        process.kill()
        code = process.wait()
        with self._lock:
            self._processes.discard(process)
        if hangs:
            return f"no work in {_LOOK_SECONDS * _IDLE_LOOKS:.0f} s"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _dismiss(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.close()
            process.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        with self._lock:
            self._processes.discard(process)


def each(
    jobs: Sequence[Job],
    order: DataclassInstance,
    workers: int,
    understand: Callable[[dict[str, Any]], Understood],
    program: str = "hone.data.worker",
) -> list[Understood]:
    """What `understand` makes of the answers to `jobs`, in their order, by a crew of at most `workers`.

    An answer is understood as it comes: as JSON it takes ten times the room. The crew is gone afterwards.
    Raises the first HoneError that is answered; jobs not begun by then are left.
    """
    waiting = deque(enumerate(jobs))
    found: dict[int, Understood] = {}
    faults: list[HoneError] = []

    def next_job() -> Job | None:
        try:
            number, job = waiting.popleft()
        except IndexError:
            return None
        return None if faults else {**job, "number": number}

    def hear(job: Job, answer: dict[str, Any] | HoneError) -> None:
        if isinstance(answer, HoneError):
            faults.append(answer)
        else:
            found[job["number"]] = understand(answer)

    crew = Crew(order, min(workers, len(jobs)), next_job, hear, program)
    try:
        crew.join()
    finally:
        crew.close()
    if faults:
        raise faults[0]
    return [found[number] for number in range(len(jobs))]


def _ask(process: subprocess.Popen[bytes], job: Job) -> dict[str, Any] | HoneError | None:
    """The answer of a process; None where it died or stands still."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(orjson.dumps(job) + b"\n")
        process.stdin.flush()
        if not _answers(process):
            return None
        line = process.stdout.readline()
    except (OSError, ValueError):
        return None
    if not line.endswith(b"\n"):
        return None
    told: dict[str, Any] = orjson.loads(line)
    if "error" in told:
        kind = getattr(errors, told["error"], HoneError)
        return kind(told["what"], where=told["where"], remedy=told["remedy"])
    return told


def _answers(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the first byte of an answer, or the end; False where the process stands still instead.

    A job may take as long as it works: what counts is that time passes in which it does not.
    """
    assert process.stdout is not None
    idle, before = 0, None
    while idle < _IDLE_LOOKS:
        if select.select([process.stdout], [], [], _LOOK_SECONDS)[0]:
            return True
        now = _work(process.pid)
        idle = idle + 1 if now is not None and now == before else 0
        before = now
    return False


def _work(pid: int) -> tuple[int, int] | None:
    """Clock ticks of a process in its own code and in the kernel (proc(5)); None where this system tells none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]), int(fields[12])
    except (OSError, ValueError, IndexError):
        return None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ended by itself. Its pipe closes a moment before it can be waited for."""
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return False
    return True


def _environment() -> dict[str, str]:
    """The environment without secrets; one thread each, for there are several."""
    alone = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return child_environment(os.environ) | alone
