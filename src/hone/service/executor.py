"""Who runs a job's process: the treaty, and this machine as one who keeps it. It knows no store.

A process gets an environment of known names only, so that no secret of the server reaches it; a session of its own, so
that all of it can be ended; and a pipe, whose end is its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import hone
from hone.recipes.cache import cache_folder
from hone.service.order import LOG

_PROGRAM: Final = "hone.service.job"
TEMPORARY: Final = "tmp"
_SHARED: Final = ("encoders", "speeds")  # kinds of the cache
_KEPT: Final = (
    "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", "PATH", "SYSTEMROOT", "TZ", "VIRTUAL_ENV",
)  # fmt: skip


class Running(Protocol):
    """A job's process, alive or not."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal's number; None while it lives."""
        ...

    def stop(self) -> None:
        """Ask it to end after the step that it is in, saved."""
        ...

    def kill(self) -> None:
        """End it with all that it started, and return when it is gone."""
        ...


class Executor(Protocol):
    """Where jobs run."""

    def start(self, folder: Path) -> Running:
        """Start the process of the job whose order lies in `folder`."""
        ...

    def end_former(self, folder: Path) -> None:
        """End what an earlier worker may have left running there."""
        ...


class ThisMachine:
    """Runs jobs as processes of this machine. `device` is the index of a GPU; None leaves all that this process sees."""

    def __init__(self, *, device: str | None = None, threads: int | None = None) -> None:
        self._more: dict[str, str] = {}
        if device is not None:
            self._more["CUDA_VISIBLE_DEVICES"] = device
        if threads is not None:
            self._more["OMP_NUM_THREADS"] = str(threads)

    def start(self, folder: Path) -> Running:
        """As `Executor.start`."""
        return LocalProcess(folder, self._more)

    def end_former(self, folder: Path) -> None:
        """As `Executor.end_former`."""
        end_processes_of(folder)


class LocalProcess:
    """The process of one job on this machine."""

    def __init__(self, folder: Path, more: Mapping[str, str]) -> None:
        self._temporary = folder / TEMPORARY
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(mode=0o700)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(folder / LOG, flags, 0o600), "ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a module of ours
                [sys.executable, "-m", _PROGRAM, str(folder.resolve())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment(self._temporary, more),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its number, and that of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """As `Running.poll`."""
        code = self._process.poll()
        if code is not None:
            self._tidy()
        return code

    def stop(self) -> None:
        """As `Running.stop`."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """As `Running.kill`."""
        self._tidy()
        self._process.wait()

    def _tidy(self) -> None:
        """End what is left of the group; the pipe's end ends what left the group too."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        shutil.rmtree(self._temporary, ignore_errors=True)


def environment(temporary: Path, more: Mapping[str, str]) -> dict[str, str]:
    """What a job's process may know: where programs and caches are, and nothing of who started it."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    package = str(Path(hone.__file__).resolve().parents[1])
    hub = os.environ.get("HF_HUB_CACHE") or str(
        Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    )
    return {
        **kept,
        "HF_HOME": str(temporary / "huggingface"),  # a token may lie beside the real one
        "HF_HUB_CACHE": hub,
        "HF_HUB_OFFLINE": "1",
        "HOME": str(temporary),
        "OMP_WAIT_POLICY": "PASSIVE",  # its threads sleep where another job has the core, instead of spinning
        "HONE_CACHE": str(_own_cache(temporary)),
        "PYTHONPATH": package,
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(temporary),
        "TOKENIZERS_PARALLELISM": "false",
        **more,
    }


def _own_cache(temporary: Path) -> Path:
    """The cache of one job: what is made of its rows goes with it, what tells nothing of them all jobs share."""
    own = temporary / "cache"
    own.mkdir(parents=True, exist_ok=True)
    for kind in _SHARED:
        shared = cache_folder() / kind
        shared.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (own / kind).symlink_to(shared.resolve(), target_is_directory=True)
    return own


def processes_of(folder: Path) -> list[int]:
    """The numbers of live processes of this job, of this user, on this machine."""
    end = f"\0-m\0{_PROGRAM}\0{folder.resolve()}\0".encode()
    found: list[int] = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                if (place / "cmdline").read_bytes().endswith(end):
                    found.append(int(place.name))
    return found


def end_processes_of(folder: Path) -> None:
    """End every process of this job on this machine, with its group, and remove what it kept for itself."""
    for pid in processes_of(folder):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    shutil.rmtree(folder / TEMPORARY, ignore_errors=True)
