"""The ranks of one machine as child processes: started, listened to, watched, and ended together.

It knows nothing of training. When one rank fails, all end; none outlives the launcher.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Final

from hone.backends.activity import Activity
from hone.backends.beacon import Elsewhere
from hone.backends.job import Job, Place, is_loopback
from hone.backends.post import Lines, Message, event_of
from hone.backends.pulse import Page, Sign
from hone.backends.transcript import Transcript
from hone.backends.watchdog import Verdict, Watchdog
from hone.runs.events import Event

_LOOK_SECONDS: Final = 0.5  # between two looks at signals and processes
_JUDGE_SECONDS: Final = 2.0  # between two looks of the watchdog
_GRACE_SECONDS: Final = 5.0  # for ranks that fail together to say so
_STOP_GRACE_SECONDS: Final = 20.0  # for ranks that stop together
_LAST_WORDS_SECONDS: Final = 1.0  # for a rank that hangs to print where


class Member:
    """One rank: its process, what it told, and what it printed."""

    def __init__(self, rank: int, process: subprocess.Popen[bytes], page: Page, post: int) -> None:
        self.rank = rank
        self.process = process
        self.page = page
        self.post: int | None = post
        self.lines = Lines()
        self.transcript = Transcript()
        self.activity = Activity(process.pid)
        self.result: Message | None = None
        self.fault: Message | None = None
        self.fault_at = 0.0
        self.killed = False

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        if not self.has_ended:
            self.killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Gang:
    """`run` starts the ranks and returns when all of them have ended.

    In the main thread, Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 are passed on to all ranks once; a second one ends them
    at once.
    """

    def __init__(self, job: Job, places: Sequence[Place], hear: Callable[[Event], object]) -> None:
        self._job = job
        self._places = places
        self._hear = hear
        self._selector = selectors.DefaultSelector()
        self._elsewhere = Elsewhere()
        self._watchdog = Watchdog(on_gpu=any(place.on_gpu for place in places))
        self._asked: list[signal.Signals] = []
        self._passed_on = 0
        self.members: list[Member] = []
        self.verdict: Verdict | None = None
        self.signs: Mapping[int, Sign] = {}
        """The last signs of life, as they were when the first rank failed."""

    @property
    def asked(self) -> signal.Signals | None:
        """The last signal that the launcher got."""
        return self._asked[-1] if self._asked else None

    @property
    def world(self) -> int:
        """Ranks of the run, those of other machines included."""
        return self._places[0].world

    def member(self, rank: int) -> Member | None:
        """The rank's process, if it is of this machine."""
        return next((member for member in self.members if member.rank == rank), None)

    @property
    def was_urged(self) -> bool:
        """Whether a second signal asked to end at once."""
        return len(self._asked) > 1

    def ask(self, number: signal.Signals) -> None:
        """As if the launcher had got this signal."""
        self._asked.append(number)

    def write_logs(self, name: Callable[[int], Path]) -> None:
        """From now on keep what each rank prints in the file of that name, all so far included."""
        for member in self.members:
            member.transcript.keep(name(member.rank))

    def run(self) -> None:
        """Start all, and return when all have ended, by themselves or because one failed."""
        try:
            with self._signals():
                for place in self._places:
                    self._start(place)
                self._supervise()
        finally:
            for member in self.members:
                member.kill()
            for member in self.members:
                member.process.wait()
                self._read_rest(member)
                member.page.close()
                member.transcript.close()
            self._selector.close()

    def _start(self, place: Place) -> None:
        page = Page.make()
        post, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own module, numbers as arguments
                [sys.executable, "-m", "hone.backends.rank", str(theirs), str(page.descriptor)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs, page.descriptor),
                env=environment(place),
                start_new_session=True,  # a terminal's Ctrl-C reaches the launcher alone
            )
        finally:
            os.close(theirs)
        member = Member(place.rank, process, page, post)
        self.members.append(member)
        assert process.stdin is not None
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(post, selectors.EVENT_READ, (member, "post"))
        self._selector.register(process.stdout.fileno(), selectors.EVENT_READ, (member, "print"))
        with contextlib.suppress(BrokenPipeError):  # it died at once: seen below
            process.stdin.write(self._job.encode(place))
            process.stdin.flush()  # and stays open: its end is ours

    def _supervise(self) -> None:
        judged = time.monotonic()
        while not all(member.has_ended for member in self.members):
            self._listen(_LOOK_SECONDS)
            self._pass_on()
            if self.was_urged:
                return
            if any(member.fault or member.process.poll() for member in self.members):
                self._settle()
                return
            now = time.monotonic()
            if now - judged > _JUDGE_SECONDS:
                judged = now
                self._judge(now)
            if self.verdict is not None:
                return

    def _judge(self, now: float) -> None:
        left = [member for member in self.members if not member.has_ended]
        signs = {member.rank: member.page.read() for member in left}
        used = {member.rank: member.activity.used() for member in left}
        self.verdict = self._watchdog.judge(
            now, signs, used, self._elsewhere.signs, self._elsewhere.heard
        )
        if self.verdict is not None:
            self.signs = signs
            for member in left:
                with contextlib.suppress(ProcessLookupError):
                    member.process.send_signal(signal.SIGUSR2)
            self._listen_until(time.monotonic() + _LAST_WORDS_SECONDS)

    def _settle(self) -> None:
        """One has failed: give the others a moment to say what they know, and to stop as they were asked."""
        self.signs = {member.rank: member.page.read() for member in self.members}
        stopped = any(_is_stop(member.fault) for member in self.members)
        self._listen_until(time.monotonic() + (_STOP_GRACE_SECONDS if stopped else _GRACE_SECONDS))

    def _listen_until(self, end: float) -> None:
        while time.monotonic() < end and not all(member.has_ended for member in self.members):
            self._listen(min(_LOOK_SECONDS, max(0.0, end - time.monotonic())))
            self._pass_on()
            if self.was_urged:
                return

    def _listen(self, seconds: float) -> None:
        """Take in what ranks tell and print, for at most so long."""
        if not self._selector.get_map():
            time.sleep(min(seconds, 0.02))
            return
        for key, _ in self._selector.select(seconds):
            member, kind = key.data
            data = _read(key.fd)
            if data is None:
                continue
            if not data:
                self._selector.unregister(key.fd)
                continue
            if kind == "post":
                self._take(member, data)
            else:
                member.transcript.add(data)

    def _read_rest(self, member: Member) -> None:
        """What a rank told before it ended and nobody has read yet."""
        assert member.process.stdout is not None
        if member.post is not None:
            os.set_blocking(member.post, False)
            while data := _read(member.post):
                self._take(member, data)
            os.close(member.post)
            member.post = None
        while data := _read(member.process.stdout.fileno()):
            member.transcript.add(data)
        member.process.stdout.close()
        if member.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                member.process.stdin.close()

    def _take(self, member: Member, data: bytes) -> None:
        for message in member.lines.take(data):
            if "event" in message:
                self._hear(event_of(message))
            elif "others" in message:
                self._elsewhere.take(message["others"])
            elif "done" in message:
                member.result = message["done"]
            else:
                member.fault, member.fault_at = message["fault"], time.monotonic()

    def _pass_on(self) -> None:
        """Ask the ranks what the launcher was asked."""
        while self._passed_on < len(self._asked):
            number = self._asked[self._passed_on]
            self._passed_on += 1
            for member in self.members:
                with contextlib.suppress(ProcessLookupError):
                    member.process.send_signal(number)

    @contextlib.contextmanager
    def _signals(self) -> Generator[None]:
        def note(number: int, frame: object) -> None:
            del frame
            self._asked.append(signal.Signals(number))

        mine = threading.current_thread() is threading.main_thread()
        # As `hone.engine.stop` hears them: the last two only where nobody ignores or handles them.
        free = [n for n in (signal.SIGHUP, signal.SIGUSR1) if signal.getsignal(n) == signal.SIG_DFL]
        numbers = (signal.SIGINT, signal.SIGTERM, *free) if mine else ()
        before = {one: signal.signal(one, note) for one in numbers}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def environment(place: Place) -> dict[str, str]:
    """The environment of a rank. What ranks of one machine say to each other stays on it."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.environ.get("PYTHONPATH")
    found = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package}
    found["PYTHONUNBUFFERED"] = "1"  # what was printed before a death is in the log
    # By these names libraries look for a rank's place.
    found |= {"RANK": str(place.rank), "WORLD_SIZE": str(place.world)}
    found |= {
        "LOCAL_RANK": str(place.gpu if place.on_gpu else place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.local_world),
    }
    if not place.on_gpu:
        found["DS_ACCELERATOR"] = "cpu"  # DeepSpeed would look for others, and say so
    found["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # ninja
    )
    if place.world == place.local_world or is_loopback(place.store):
        found |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return found


def _is_stop(fault: Message | None) -> bool:
    return fault is not None and fault["kind"] in ("Interrupted", "Terminated")


def _read(descriptor: int) -> bytes | None:
    """What is there; empty at the end, None where there is nothing yet."""
    try:
        return os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return None
    except OSError:
        return b""
