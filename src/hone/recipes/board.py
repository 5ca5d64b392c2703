"""TensorBoard beside a run: started on this machine alone, known by a file, ended by its own process number.

The package does all that is shown; here is only what starts and ends it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from hone.config.surroundings import child_environment
from hone.errors import ConfigError, EnvironmentFault

_START_S: Final = 60.0
_END_S: Final = 10.0
_HOST: Final = "127.0.0.1"
_NAME: Final = ".tensorboard.json"


@dataclass(frozen=True)
class Board:
    """One that runs."""

    pid: int
    began: int
    """When the process started, in the kernel's ticks: a number may be given again, this moment not."""
    port: int
    logdir: str

    @property
    def url(self) -> str:
        """Where it is looked at."""
        return f"http://{_HOST}:{self.port}"

    @property
    def is_alive(self) -> bool:
        """Whether this very process runs."""
        return _began(self.pid) == self.began


def start_board(logdir: Path, port: int) -> tuple[Board, bool]:
    """TensorBoard over a folder, and whether it was started just now: one that runs for that folder is kept.

    Raises EnvironmentFault where the package is not installed, the port is taken or it does not come up; ConfigError
    where another folder's board is known here.
    """
    here = read_board()
    if here is not None and here.is_alive:
        if (here.logdir, here.port) == (str(logdir.resolve()), port):
            return here, False
        raise ConfigError(
            f"a TensorBoard of {here.logdir} runs already on port {here.port}",
            where=str(_file()),
            remedy="end it: hone tensorboard stop",
        )
    if importlib.util.find_spec("tensorboard") is None:
        raise EnvironmentFault(
            "the package tensorboard is not installed", remedy="pip install 'hone[track]'"
        )
    if _answers(port):
        raise EnvironmentFault(
            f"port {port} is in use", remedy="set --port to another one (make: TB_PORT=6007)"
        )
    logdir.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir.resolve()), "--host", _HOST, "--port", str(port),
        "--reload_interval", "5",
    ]  # fmt: skip
    process = subprocess.Popen(  # noqa: S603 - words of ours
        command,
        env=child_environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    board = Board(process.pid, _began(process.pid) or 0, port, str(logdir.resolve()))
    _file().write_text(json.dumps(asdict(board)) + "\n")
    until = time.monotonic() + _START_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > until:
            stop_board()
            raise EnvironmentFault(
                "TensorBoard did not come up",
                remedy=f"see what it says: tensorboard --logdir {logdir} --port {port}",
            )
        time.sleep(0.1)
    return board, True


def read_board() -> Board | None:
    """What is known of a board that was started in this folder; None where nothing is."""
    try:
        said: Any = json.loads(_file().read_bytes())
        told = cast("dict[str, Any]", said)
        return Board(int(told["pid"]), int(told["began"]), int(told["port"]), str(told["logdir"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def stop_board() -> Board | None:
    """End the board that was started in this folder, and no other process; it, or None where none runs."""
    board = read_board()
    is_alive = board is not None and board.is_alive
    if board is not None and is_alive:
        _end(board)
    _file().unlink(missing_ok=True)
    return board if is_alive else None


def _end(board: Board) -> None:
    for number, patience in ((signal.SIGTERM, _END_S), (signal.SIGKILL, _END_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(board.pid, number)
        until = time.monotonic() + patience
        while board.is_alive and time.monotonic() < until:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(board.pid, os.WNOHANG)
            time.sleep(0.05)
        if not board.is_alive:
            return


def _file() -> Path:
    return Path(_NAME)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((_HOST, port), timeout=1):
        return True
    return False


def _began(pid: int) -> int | None:
    """When a process started; None where there is none, or only what its parent has not asked for yet."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
