"""The client of a service beside a network that fails: stalls, half answers, nonsense, redirects, Retry-After."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hone.backends.job_api import JobApi, Unreachable, job_path, persist
from hone.backends.service_address import ServiceAddress
from hone.errors import ConfigError, EnvironmentFault, HoneError, RemoteError

KEY = "key-of-a-test"


@contextmanager
def answering(*answers: bytes | None) -> Iterator[tuple[JobApi, list[bytes]]]:
    """A client of a server that gives these answers, one for each connection; None: it says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []
    stalled: list[socket.socket] = []

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # the test is over, and not all was asked for
            heard.append(connection.recv(1 << 16))
            if answer is None:
                stalled.append(connection)
                continue
            with connection:
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    address = ServiceAddress(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", KEY)
    api = JobApi(address, timeout_seconds=0.5)
    try:
        yield api, heard
    finally:
        api.close()
        for connection in stalled:
            connection.close()
        listener.close()
        thread.join(5)


def http(status: int, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", "content-type: application/json", "connection: close"]  # fmt: skip
    return "\r\n".join([*lines, *headers, "", body]).encode()


def refusal(message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "t", "param": "p", "code": "c"}})


@pytest.mark.fault(17)
@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"\x00\x01\x02 what is this\r\n\r\n",
        http(500, ""),
        http(502, "<html>proxy</html>"),
        http(503, refusal("busy")),
        http(408, "{}"),
        http(429, refusal("slow down"), "retry-after: 1"),
        http(400, refusal("again"), "x-should-retry: true"),
    ],
    ids=["stall", "closed", "half", "nonsense", "500", "502", "503", "408", "429", "told-to"],
)
def test_what_may_pass_is_tried_again(answer: bytes | None) -> None:
    with answering(answer, http(200, '{"id": "x"}')) as (api, heard):
        said: list[str] = []
        told = persist(lambda: api.get("/a"), patience_seconds=20, say=said.append)
    assert told == {"id": "x"}
    assert len(heard) == 2
    assert len(said) == 2
    assert "trying again" in said[0]


@pytest.mark.fault(17)
@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (http(400, refusal("p: no such thing")), ConfigError, "p: no such thing"),
        (http(404, "nothing here"), ConfigError, "404"),
        (http(401, refusal("no")), EnvironmentFault, "does not accept the key"),
        (http(403, refusal("no")), EnvironmentFault, "does not allow"),
        (http(507, refusal("full"), "x-should-retry: false"), RemoteError, "full"),
        (http(200, "[1]"), RemoteError, "no object"),
        (http(200, '"text"'), RemoteError, "no object"),
        (http(302, "", "location: http://127.0.0.1:9/elsewhere"), HoneError, "302"),
    ],
)
def test_what_does_not_pass_is_said_at_once(
    answer: bytes, kind: type[HoneError], said: str
) -> None:
    with (
        answering(answer, http(200, "{}")) as (api, heard),
        pytest.raises(kind, match=said) as told,
    ):
        persist(lambda: api.get("/a"), patience_seconds=20, say=lambda _: None)
    assert not isinstance(told.value, Unreachable)
    assert len(heard) == 1, "asked once, and no redirect is followed"


def test_no_money_is_no_hurry() -> None:
    body = '{"error": {"message": "pay", "type": "t", "param": null, "code": "insufficient_quota"}}'
    with answering(http(429, body)) as (api, _), pytest.raises(EnvironmentFault, match="pay"):
        api.get("/a")


def test_a_service_is_waited_for_as_it_asks() -> None:
    with answering(http(429, refusal("x"), "retry-after: 2"), http(200, "{}")) as (api, _):
        began = time.monotonic()
        persist(lambda: api.get("/a"), patience_seconds=20, say=lambda _: None)
        assert time.monotonic() - began >= 2


def test_a_key_that_a_service_repeats_is_not_shown() -> None:
    with answering(http(400, refusal(f"{KEY} is odd"))) as (api, _), pytest.raises(ConfigError) as told:  # fmt: skip
        api.get("/a")
    assert KEY not in str(told.value)


def test_patience_ends_and_a_stop_ends_it_at_once() -> None:
    def never() -> None:
        raise Unreachable("away")

    with pytest.raises(Unreachable):
        persist(never, patience_seconds=0.0, say=lambda _: None)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Unreachable):
        persist(never, patience_seconds=600, say=lambda _: None, stop=stop)
    assert time.monotonic() - began < 5


def test_an_id_stays_in_its_place() -> None:
    assert job_path("../../files?x#y") == "/fine_tuning/jobs/..%2F..%2Ffiles%3Fx%23y"


@pytest.mark.fault(16)
def test_no_proxy_stands_between_this_machine_and_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
    with answering(http(200, "{}")) as (api, heard):
        assert api.get("/a") == {}
    assert b"org-of-mine" not in heard[0]
    assert f"Bearer {KEY}".encode() in heard[0]
