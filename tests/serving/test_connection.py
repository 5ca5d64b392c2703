"""A caller who does not say what it wants does not keep a connection; everybody else does."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hone.serving.connection import Connection
from hone.serving.server import Address, Server
from tests.service.served import serving
from tests.serving.scripted import ScriptedWriter

HEAD_S = 0.6
WHOLE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(params=["serve", "service"])
def port(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Where a server of each kind listens."""
    monkeypatch.setattr(Connection, "head_s", HEAD_S)
    if request.param == "service":
        with serving(tmp_path) as served:
            yield served.service.port
        return
    server = Server(ScriptedWriter(tmp_path, {"m": "hi"}), Address(port=0))
    server.start()
    yield server.port
    server.stop()


def rest(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    told = b""
    while block := connection.recv(4096):
        told += block
    return told


def answered(connection: socket.socket) -> None:
    """One whole answer, which says that the server is well."""
    told = b""
    while not told.endswith(b"}"):
        block = connection.recv(4096)
        assert block, told
        told += block
    assert told.startswith(b"HTTP/1.1 200 ")


def nothing(connection: socket.socket) -> None:
    """A caller that only connects."""


def half(connection: socket.socket) -> None:
    """A caller that sends half a head."""
    connection.sendall(WHOLE[:20])


def drops(connection: socket.socket) -> None:
    """A caller that sends a byte at a time, and never the last."""
    for at in range(8):
        connection.sendall(WHOLE[at : at + 1])
        time.sleep(0.05)


def second(connection: socket.socket) -> None:
    """A caller whose first request is whole, and the next one half."""
    connection.sendall(WHOLE)
    answered(connection)
    connection.sendall(WHOLE[:20])


def two(connection: socket.socket) -> None:
    """One request and a byte of the next, sent together; then another byte."""
    connection.sendall(WHOLE + b"G")
    answered(connection)
    connection.sendall(b"E")


@pytest.mark.parametrize("caller", [nothing, half, drops, second, two])
def test_a_head_that_does_not_come_is_given_up(
    port: int, caller: Callable[[socket.socket], None]
) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        began = time.monotonic()
        caller(connection)
        told = rest(connection)
        assert told.startswith(b"HTTP/1.1 408 ")
        assert HEAD_S * 0.9 <= time.monotonic() - began < HEAD_S + 3


def test_an_idle_connection_between_requests_is_kept(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(WHOLE[:10])
            time.sleep(0.1)
            connection.sendall(WHOLE[10:])
            answered(connection)
            time.sleep(HEAD_S * 1.5)


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
from pathlib import Path
from hone.service.operator import Operator
from hone.service.server import Service
from hone.serving.server import Address
one = Service(Path(sys.argv[1]), Operator({"tiny": "x"}), Address(port=0))
print(one.port, flush=True)
one.run()
"""


@pytest.mark.fault(38)
def test_more_callers_than_files_may_be_open(tmp_path: Path) -> None:
    """Those beyond the limit are turned away, nothing is logged, and who comes later is answered."""
    command = [sys.executable, "-c", FEW_FILES, str(tmp_path), "300"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as child:  # type: ignore[call-overload]
        try:
            crowd_out(child)
        finally:
            child.terminate()
        assert (child.wait(20), child.stderr.read()) == (0, "")


def crowd_out(child: subprocess.Popen[str]) -> None:
    """Open more connections than it can hold; the first and later ones are answered."""
    assert child.stdout is not None
    port = int(child.stdout.readline())
    crowd = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(500)]
    assert rest(crowd[-1]).startswith(b"HTTP/1.1 503 ")
    crowd[0].sendall(WHOLE)
    answered(crowd[0])
    for one in crowd:
        one.close()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(WHOLE)
        answered(connection)


def test_too_few_files_to_serve_anybody(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FEW_FILES, str(tmp_path), "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "this process may open 64 files; a server needs 257" in done.stderr
