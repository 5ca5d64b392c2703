"""Who may ask, by which name, how much: every refusal as an error object, and nothing of the inside."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from hone.errors import ConfigError, EnvironmentFault
from hone.serving import app as app_module
from hone.serving import gate
from hone.serving.gate import Gate
from hone.serving.server import Address, Server
from tests.serving.scripted import ScriptedWriter


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    writer = ScriptedWriter(tmp_path, {"m": "hi"})
    made = Server(writer, Address(port=0, key="the-key", names=("box.local",)))
    gate_in_use: Any = made._uvicorn.config.app
    assert isinstance(gate_in_use, Gate)
    gate_in_use._rules = replace(gate_in_use._rules, body_bytes=5000, body_s=1.0)
    made.start()
    yield made
    made.stop()


def ask(
    server: Server,
    *,
    path: str = "/v1/models",
    method: str = "GET",
    body: Any = None,
    **headers: str,
) -> tuple[int, Any, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    named = {
        "Authorization": "Bearer the-key",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    connection.request(method, path, body, {k: v for k, v in named.items() if v})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    return answer.status, said, answer


def test_the_key_is_asked_for_and_health_is_open(server: Server) -> None:
    assert ask(server)[0] == 200
    for header in ("", "Bearer", "Bearer wrong", "Bearer the-ke", "Basic the-key", "Bearer thé"):
        status, said, answer = ask(server, Authorization=header)
        assert status == 401
        assert set(said["error"]) == {"message", "type", "param", "code"}
        assert said["error"]["code"] == "invalid_api_key"
        assert answer.headers["x-request-id"].startswith("req_")
    assert ask(server, path="/health", Authorization="")[:2] == (200, {"status": "ok"})
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=server.base_url, api_key="no").models.list()
    right = openai.OpenAI(base_url=server.base_url, api_key="the-key")
    assert [model.id for model in right.models.list()] == ["m"]


def test_keys_are_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = gate.hmac.compare_digest

    def spy(given: bytes, wanted: bytes) -> bool:
        compared.append((given, wanted))
        return real(given, wanted)

    monkeypatch.setattr(gate.hmac, "compare_digest", spy)
    ask(server, Authorization="Bearer k")
    assert len(compared) == 1
    assert len(compared[0][0]) == len(compared[0][1]) == 32


@pytest.mark.parametrize("name", ["Host", "Origin"])
def test_another_name_or_page_is_refused(server: Server, name: str) -> None:
    prefix = "http://" if name == "Origin" else ""
    for host in ("localhost:1", "127.0.0.1", "[::1]:80", "box.local"):
        assert ask(server, **{name: prefix + host})[0] == 200
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "null",
        "[",
        "",
    ):
        if host or name == "Origin":
            status, said, _ = ask(server, **{name: prefix + host or "null"})
            assert status == 403
            assert said["error"]["type"] == "permission_error"


def test_bodies_too_large_or_too_slow_or_no_json(server: Server) -> None:
    path = "/v1/chat/completions"
    assert ask(server, path=path, method="POST", body="x" * 5001)[0] == 413
    chunked = iter([b"x" * 3000, b"x" * 3000])
    assert ask(server, path=path, method="POST", body=chunked)[0] == 413
    for body in ("", "{", "[]", '{"a": NaN}', '{"model": "m", "messages": ' + "[" * 2000, "\udcff"):
        sent = body.encode("utf-8", "surrogateescape")
        status, said, _ = ask(server, path=path, method="POST", body=sent)
        assert status == 400, body
        assert said["error"]["message"]
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        slow.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer the-key\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        said = slow.recv(4096)
    assert said.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 15


def test_paths_and_methods_that_are_not_there(server: Server) -> None:
    for method, path, want in (
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/models/../../etc/passwd", 404),
    ):
        status, said, _ = ask(server, path=path, method=method)
        assert status == want
        assert set(said["error"]) == {"message", "type", "param", "code"}


def test_an_open_door_needs_a_key_and_a_taken_port_is_said(tmp_path: Path, server: Server) -> None:
    writer = ScriptedWriter(tmp_path, {"m": "hi"})
    with pytest.raises(ConfigError, match="no API key"):
        Server(writer, Address("0.0.0.0", 0))
    with pytest.raises(EnvironmentFault, match=f"port {server.port} is in use"):
        Server(writer, Address(port=server.port))
    assert "the-key" not in repr(Address(key="the-key"))
    assert Address("0.0.0.0", key="k").rules.hosts is None


def test_a_stream_shows_that_it_lives_while_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "_ALIVE_S", 0.05)
    server = Server(ScriptedWriter(tmp_path, {"m": "hi"}, pause_s=0.5), Address(port=0))
    server.start()
    try:
        body = json.dumps(
            {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True}
        )
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("POST", "/v1/chat/completions", body)
        text = connection.getresponse().read().decode()
    finally:
        server.stop()
    assert ": waiting\n\n" in text
    assert text.endswith("data: [DONE]\n\n")
